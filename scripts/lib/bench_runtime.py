"""Cost of a call through the runtime, on a kernel that does next to nothing.

Each of six ways to call takes its turn in every round, in rotating order. Reported are the median over the
rounds and, for each pair, the median of the differences and of the ratios within a round, with its interval
(99 percent, order statistics). Nothing is left behind: target, registry and cache are in a temporary folder.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kernelevolve import Runtime, hardware, targets
from kernelevolve.harness.build import BuildFailed, build
from kernelevolve.registry.domain import domain
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.schema import Candidate, Entry, Environment, Hardware, Limits, Measurement, Provenance

TARGET = """
name = "head"
summary = "The first k elements of each row with their positions"
source = "the cheapest operation with the signature of a Top-K"
axes.batch = "rows"
axes.n = "elements in a row"
axes.k = "elements to keep"
dtypes.T = ["float32"]
inputs = [{ name = "x", shape = ["batch", "n"], dtype = "T" }, { name = "k", axis = "k" }]
outputs = [
    { name = "values", shape = ["batch", "k"], dtype = "T" },
    { name = "indices", shape = ["batch", "k"], dtype = "int64" },
]
baselines = [{ name = "eager", summary = "slice and copy" }]
cost.operations = "batch * k"
[[workloads]]
name = "a"
role = "search"
device = "cpu"
axes = { batch = 4, n = 16, k = 4 }
dtypes = { T = "float32" }
[[workloads]]
name = "b"
role = "held_out"
device = "cpu"
axes = { batch = 4, n = 32, k = 4 }
dtypes = { T = "float32" }
"""
REFERENCE = """
import torch

def reference(x, k):
    return x[:, :k].contiguous(), torch.arange(k).expand(x.shape[0], k).contiguous()
"""
BASELINES = """
def eager(x, k, values, indices):
    values.copy_(x[:, :k])
    indices.copy_(range(k))
"""
KERNEL = """
#include <tvm/ffi/tvm_ffi.h>

void run(tvm::ffi::TensorView x, int64_t k, tvm::ffi::TensorView values, tvm::ffi::TensorView indices) {
  const float* from = static_cast<const float*>(x.data_ptr());
  float* value = static_cast<float*>(values.data_ptr());
  int64_t* index = static_cast<int64_t*>(indices.data_ptr());
  for (int64_t row = 0; row < x.size(0); ++row)
    for (int64_t i = 0; i < k; ++i, ++value, ++index) *value = from[row * x.size(1) + i], *index = i;
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
"""
BATCH, N, K = 4, 16, 4
PAIRS = (("hit", "direct"), ("hit_out", "direct_out"), ("miss", "reference"))
TITLES = {
    "direct": "kernel, outputs from torch.empty",
    "hit": "op(x, k), a hit",
    "direct_out": "kernel, outputs at hand",
    "hit_out": "op(x, k, out=...), a hit",
    "reference": "reference(x, k)",
    "miss": "op(x, k), a miss",
}


@dataclass(frozen=True)
class Interval:
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    added_ns: Interval
    ratio: Interval


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench-runtime", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=400, help="turns of each way to call (default 400)")
    parser.add_argument("--calls", type=int, default=250, help="calls in a turn (default 250)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        ways = prepare(Path(folder))
        times = measure(ways, options.rounds, options.calls)
    medians = {name: statistics.median(turns) for name, turns in times.items()}
    pairs = {name: compare(times[name], times[other]) for name, other in PAIRS}
    if options.json:
        document = {
            "hardware": hardware.detect().key,
            "ns": medians,
            "against": {name: {"other": other, **asdict(pairs[name])} for name, other in PAIRS},
        }
        print(json.dumps(document, indent=2))
    else:
        report(medians, pairs)
    return 0


def prepare(folder: Path) -> Mapping[str, Callable[[], Any]]:
    """Publish the kernel, check that every way gives the same answer, and return the ways."""
    home = folder / "targets" / "head"
    home.mkdir(parents=True)
    for name, text in (("target.toml", TARGET), ("reference.py", REFERENCE), ("baselines.py", BASELINES)):
        (home / name).write_text(text)
    here, cache = hardware.detect(), folder / "cache"
    target = targets.load("head", folder / "targets")
    candidate = Candidate(language="cpp", files={"main.cpp": KERNEL})
    LocalRegistry(folder / "registry").publish(an_entry(target.digest, here, candidate))
    op = Runtime(folder / "registry", hardware=here, targets=folder / "targets", cache_dir=cache).op("head")
    built = build(candidate, here, Limits(), cache)
    if isinstance(built, BuildFailed):
        raise SystemExit(f"the kernel does not build: {built.diagnostics[0].message}")
    run = built.language.load(built.artifact).run
    names: dict[str, Any] = {}
    exec(REFERENCE, names)
    reference: Any = names["reference"]
    x, unknown = torch.randn(BATCH, N), torch.randn(BATCH, N - 1)
    values, indices = torch.empty(BATCH, K), torch.empty(BATCH, K, dtype=torch.int64)
    shape, int64, float32, empty = (BATCH, K), torch.int64, torch.float32, torch.empty

    def direct() -> object:
        fresh_values = empty(shape, dtype=float32)
        fresh_indices = empty(shape, dtype=int64)
        run(x, K, fresh_values, fresh_indices)
        return fresh_values, fresh_indices

    ways = {
        "direct": direct,
        "hit": lambda: op(x, K),
        "direct_out": lambda: run(x, K, values, indices) or (values, indices),
        "hit_out": lambda: op(x, K, out=(values, indices)),
        "reference": lambda: reference(unknown, K),
        "miss": lambda: op(unknown, K),
    }
    for name, way in ways.items():
        expected = reference(unknown if name in ("reference", "miss") else x, K)
        if not all(map(torch.equal, way(), expected)):
            raise SystemExit(f"{name} gives a wrong answer")
    if (op.stats.hits, op.stats.fallbacks) != (2, 1):
        raise SystemExit(f"calls went astray: {op.stats}")
    return ways


def an_entry(target_digest: str, here: Hardware, candidate: Candidate) -> Entry:
    """An entry as certification would leave it; its numbers are made up, nothing here reads them."""
    won = Measurement(
        workload="a", axes={"batch": BATCH, "n": N, "k": K}, dtypes={"T": "float32"}, baseline="eager",
        candidate_us=1.0, baseline_us=2.0, speedup=2.0, low=1.9, high=2.1, confidence=0.99, pairs=8,
        verdict="faster",
    )  # fmt: skip
    return Entry(
        target="head",
        target_digest=target_digest,
        hardware=here,
        candidate=candidate,
        domain=domain([won]),
        evidence=(won,),
        environment=Environment(hardware_key=here.key, threads=1, versions={}, sandbox=()),
        provenance=Provenance(created_at="1970-01-01T00:00:00Z", kernelevolve="0"),
    )


def measure(ways: Mapping[str, Callable[[], Any]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Nanoseconds a call, one value a turn."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    empty = statistics.median(turn(lambda: None, calls) for _ in range(50))
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(turn(ways[name], calls) - empty)
    return times


def turn(way: Callable[[], object], calls: int) -> float:
    repeat = range(calls)
    started = time.perf_counter_ns()
    for _ in repeat:
        way()
    return (time.perf_counter_ns() - started) / calls


def compare(one: Sequence[float], other: Sequence[float]) -> Comparison:
    return Comparison(
        added_ns=interval([a - b for a, b in zip(one, other, strict=True)]),
        ratio=interval([a / b for a, b in zip(one, other, strict=True)]),
    )


def interval(values: Sequence[float]) -> Interval:
    """Median with its 99 % interval: order statistics, normal approximation of the binomial."""
    ordered = sorted(values)
    n = len(ordered)
    reach = math.ceil(2.576 * math.sqrt(n) / 2)
    return Interval(statistics.median(ordered), ordered[max(0, n // 2 - reach)], ordered[min(n - 1, n // 2 + reach)])


def report(medians: Mapping[str, float], pairs: Mapping[str, Comparison]) -> None:
    print(f"{'':36s}{'us a call':>10s}{'added, ns':>12s}{'(99 %)':>16s}{'ratio':>8s}{'(99 %)':>16s}")
    for name, title in TITLES.items():
        line = f"{title:36s}{medians[name] / 1e3:10.2f}"
        if pair := pairs.get(name):
            added, ratio = pair.added_ns, pair.ratio
            line += f"{added.median:12.0f}{f'{added.low:.0f} to {added.high:.0f}':>16s}"
            line += f"{ratio.median:8.2f}{f'{ratio.low:.2f} to {ratio.high:.2f}':>16s}"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
