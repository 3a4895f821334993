"""Serve the Top-K kernel from the registry on inputs that no search saw, and compare it with torch.topk."""

import statistics
import sys
import time

import torch

from kernelevolve import Runtime

BATCH, N, K = 128, 16384, 64
ROUNDS, INPUTS = 60, 16


def main() -> int:
    op = Runtime().op("topk")
    inputs = [torch.randn(BATCH, N) for _ in range(INPUTS)]
    values, indices = op(inputs[0], K)
    right, _ = torch.topk(inputs[0], K)
    if not (torch.equal(values, right) and torch.equal(inputs[0].gather(1, indices), right)):
        print("the served answer differs from torch.topk", file=sys.stderr)
        return 1
    if op.stats.hits == 0:
        print("no certified kernel covers this shape: the reference answered", file=sys.stderr)
        return 4
    ours, theirs = [], []
    for i in range(ROUNDS):
        x = inputs[i % INPUTS]
        ours.append(clock(lambda x=x: op(x, K)))
        theirs.append(clock(lambda x=x: torch.topk(x, K)))
    mine, torchs = statistics.median(ours), statistics.median(theirs)
    print(f"served topk({BATCH} x {N}, k {K}, float32) on a new input: the same values as torch.topk")
    print(f"  {mine:.0f} us a call, torch.topk {torchs:.0f} us: {torchs / mine:.1f}x")
    return 0


def clock(call) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e6


if __name__ == "__main__":
    sys.exit(main())
