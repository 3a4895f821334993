"""Triton candidates for the tiny target (`out = x * factor`, column by column): right ones, and others."""

from kernelevolve.schema import Candidate, Lineage, Target, Workload

SOURCE = """\
import torch
import triton
import triton.language as tl
@GLOBALS@

@triton.jit
def scale(x, factor, out, size, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    value = tl.load(x + at, mask=inside) * tl.load(factor + at % n, mask=inside)
    tl.store(out + at, value, mask=inside)


def launch(x, factor, out):
    size = x.numel()
    scale[(triton.cdiv(size, 8192),)](x, factor, out, size, x.shape[1], BLOCK=8192)


def run(x, factor, out):
    @BODY@
"""

PREPARED = SOURCE.replace(
    "def run(x, factor, out)", "def prepare(factor):\n    return 2 * factor\n\n\ndef run(x, factor, twice, out)"
).replace("@BODY@", "launch(x, 0.5 * twice, out)")


def a_module(body: str = "launch(x, factor, out)", *, global_code: str = "", source: str = SOURCE) -> Candidate:
    """A Triton candidate with this body of `run`."""
    text = source.replace("@BODY@", body.replace("\n", "\n    ")).replace("@GLOBALS@", global_code)
    return Candidate(language="triton", files={"main.py": text}, lineage=Lineage(origin=body[:40]))


def on_gpu(target: Target, scale: int = 1) -> Target:
    """The same target with its workloads declared for a GPU; those that are timed, with `scale` times the rows."""

    def moved(workload: Workload) -> Workload:
        rows = workload.axes["rows"] * (1 if workload.role == "check" else scale)
        return workload.model_copy(update={"device": "gpu", "axes": {**workload.axes, "rows": rows}})

    return target.model_copy(update={"workloads": tuple(map(moved, target.workloads))})
