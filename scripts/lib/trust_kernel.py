"""A kernel and the same kernel slowed by a known share, as target, candidates and a judge whose baseline is compiled.

The kernel sums a series for each of 65,536 numbers. The slowed one does so once more for the first so many thousandths
of them: the same instructions, the same answer, and that much more work by construction.
"""

from pathlib import Path

from kernelevolve import hardware
from kernelevolve.harness.bench import Bench
from kernelevolve.harness.build import Built, build
from kernelevolve.harness.judge import Judge
from kernelevolve.harness.programs import candidate_program
from kernelevolve.harness.runner import Runner
from kernelevolve.harness.sandbox import Sandbox
from kernelevolve.schema import (
    Baseline,
    CalibrationJob,
    Candidate,
    CostModel,
    Evaluation,
    Hardware,
    Input,
    Job,
    Limits,
    Lineage,
    Output,
    Target,
    TimingPlan,
    Workload,
)

TERMS = 12
ROWS, COLUMNS = 64, 1024

_REFERENCE = f"""\
import torch


def reference(x):
    y = torch.ones_like(x)
    for k in range({TERMS}, 0, -1):
        y = 1 + y * x * (1.0 / k)
    return y
"""

_KERNEL = """\
#include <tvm/ffi/tvm_ffi.h>
#include <cstdint>

__attribute__((noinline)) static void series(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    float sum = 1.0f;
#pragma GCC unroll 12
    for (int k = TERMS; k > 0; --k) sum = 1.0f + sum * x[i] * (1.0f / k);
    y[i] = sum;
  }
}

void run(tvm::ffi::TensorView x_, tvm::ffi::TensorView y_) {
  const float* x = static_cast<const float*>(x_.data_ptr());
  float* y = static_cast<float*>(y_.data_ptr());
  const int64_t count = x_.size(0) * x_.size(1);
  series(x, y, count);
  asm volatile("" ::: "memory");  // what follows is not the same work to the compiler
  series(x, y, count * EXTRA / 1000);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
"""

TARGET = Target(
    name="series",
    summary="The exponential series, a dozen terms.",
    source="work whose amount is known",
    axes={"rows": "rows", "n": "numbers in a row"},
    dtypes={"T": ("float32",)},
    inputs=(Input(name="x", shape=("rows", "n"), dtype="T"),),
    outputs=(Output(name="y", shape=("rows", "n"), dtype="T"),),
    workloads=(
        Workload(
            name="series", role="search", device="cpu", axes={"rows": ROWS, "n": COLUMNS}, dtypes={"T": "float32"}
        ),
    ),
    baselines=(Baseline(name="compiled", summary="the kernel itself, or a slower one, in a process of its own"),),
    cost=CostModel(operations=f"{3 * TERMS} * rows * n"),
    files={"reference.py": _REFERENCE, "baselines.py": "def compiled(x, y):\n    raise NotImplementedError\n"},
)


def kernel(extra: int) -> Candidate:
    """The kernel, slowed by `extra` thousandths."""
    text = _KERNEL.replace("TERMS", str(TERMS)).replace("EXTRA", str(extra))
    return Candidate(language="cpp", files={"main.cpp": text}, lineage=Lineage(origin=f"series+{extra}"))


class _CompiledBench(Bench):
    """Its baseline is a compiled kernel, in a fresh process for each evaluation."""

    artifact: Path

    @property
    def baselines(self) -> Runner:
        if self._baselines is None:
            program = candidate_program(
                self.artifact, "run", Sandbox.open(self._cache_dir), self._cache_dir, self._threads
            )
            self._baselines = Runner(program, self.arena, Limits())
            self._baselines.load(20.0)
            self._baselines.stop()
        return self._baselines

    def renew(self, artifact: Path) -> None:
        """End the baseline's process; the next one holds this kernel."""
        if self._baselines is not None:
            self._baselines.__exit__()
        self._baselines, self.artifact = None, artifact


class Duel(Judge):
    """The judge as it is, but for the baseline: kernel against kernel, both in fresh processes."""

    def __init__(self, cache_dir: Path) -> None:
        super().__init__(cache_dir)
        self._hardware: Hardware = hardware.find(None)
        self._cache = cache_dir

    def _make_bench(self, job: Job | CalibrationJob, workloads: tuple[Workload, ...]) -> Bench:
        return _CompiledBench(job.target, workloads, job.threads, self._cache, access=self.access(job))

    def fight(self, candidate: int, baseline: int, plan: TimingPlan) -> Evaluation:
        """Evaluate the kernel slowed by so many thousandths against one slowed by others."""
        built = build(kernel(baseline), self._hardware, Limits(), self._cache)
        assert isinstance(built, Built), built
        job = Job(
            target=TARGET, candidate=kernel(candidate), hardware=self._hardware, purpose="eval", timing=plan,
            baselines={"series": ("compiled",)}, threads=1, cache_dir=str(self._cache),
        )  # fmt: skip
        bench = self.bench(job, TARGET.workloads)
        assert isinstance(bench, _CompiledBench)
        bench.renew(built.artifact)
        return self.evaluate(job)
