"""Small, valid records for tests: a target that doubles a vector, and what a search of it leaves behind.

Every function gives the same record each time; keyword arguments replace single fields.
"""

from typing import Any

from kernelevolve.schema import (
    Baseline,
    BaselineTime,
    Calibration,
    Candidate,
    CompileError,
    CostModel,
    Device,
    Diagnostic,
    Environment,
    Estimate,
    EstimateParts,
    Event,
    EventKind,
    Failed,
    Hardware,
    Input,
    KernelNeeds,
    Lineage,
    Measurement,
    Output,
    Passed,
    Proposal,
    Purpose,
    Raised,
    Role,
    RunSpec,
    Stage,
    Target,
    Triaged,
    Workload,
    digest_of,
)

SOURCE = """\
#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>

// tunable BLOCK: 8 16 32
void run(tvm::ffi::TensorView x, tvm::ffi::TensorView y) {
  const float* from = static_cast<const float*>(x.data_ptr());
  float* to = static_cast<float*>(y.data_ptr());
  for (int64_t start = 0; start < x.size(0); start += BLOCK) {
    const int64_t end = std::min<int64_t>(x.size(0), start + BLOCK);
    for (int64_t i = start; i < end; ++i) to[i] = 2.0f * from[i];
  }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
"""
"""A C++ kernel of the doubling target, with one tunable."""

_REFERENCE = "def reference(x):\n    return x * 2\n"
_BASELINES = "import torch\n\n\ndef eager(x, y):\n    torch.mul(x, 2, out=y)\n"


def a_workload(name: str = "n1024", *, n: int = 1024, role: Role = "search", device: Device = "cpu") -> Workload:
    """Doubling `n` numbers of float32."""
    return Workload(name=name, role=role, device=device, axes={"N": n}, dtypes={"T": "float32"})


def a_target(**changes: Any) -> Target:
    """`y = 2 x` over `N` numbers: one search, one held-out and one check workload for a CPU."""
    fields: dict[str, Any] = {
        "name": "double",
        "summary": "Twice a vector.",
        "source": "the smallest operation that has an input and an output",
        "axes": {"N": "elements"},
        "dtypes": {"T": ("float32",)},
        "inputs": (Input(name="x", shape=("N",), dtype="T"),),
        "outputs": (Output(name="y", shape=("N",), dtype="T"),),
        "workloads": (
            a_workload(),
            a_workload("n2048", n=2048, role="held_out"),
            a_workload("n7", n=7, role="check"),
        ),
        "baselines": (Baseline(name="eager", summary="torch.mul with a preallocated result"),),
        "cost": CostModel(operations="N"),
        "files": {"reference.py": _REFERENCE, "baselines.py": _BASELINES},
    }
    return Target(**{**fields, **changes})


def a_hardware(**changes: Any) -> Hardware:
    """A CPU with two cores."""
    fields: dict[str, Any] = {
        "key": "test-cpu-2c",
        "device": "cpu",
        "vendor": "test",
        "product": "Test CPU",
        "architecture": "x86-64-v3",
        "cores": 2,
        "memory_bytes": 8 << 30,
        "features": ("avx2", "fma"),
        "toolchain": {"g++": "12.2.0"},
    }
    return Hardware(**{**fields, **changes})


def an_environment(**changes: Any) -> Environment:
    """Where the evaluations of `a_passed` come from."""
    fields: dict[str, Any] = {
        "hardware_key": a_hardware().key,
        "threads": 2,
        "versions": {"g++": "12.2.0"},
        "sandbox": ("rlimits",),
    }
    return Environment(**{**fields, **changes})


def a_candidate(**changes: Any) -> Candidate:
    """A C++ kernel; change `tunables` for another of its family, `files` for another family."""
    fields: dict[str, Any] = {
        "language": "cpp",
        "files": {"main.cpp": SOURCE},
        "tunables": {"BLOCK": 8},
        "lineage": Lineage(origin="main.cpp"),
    }
    return Candidate(**{**fields, **changes})


def a_proposal(candidate: Candidate | None = None, **changes: Any) -> Proposal:
    """The proposal that a candidate came from."""
    candidate = candidate or a_candidate()
    fields: dict[str, Any] = {
        "proposer": "tuner",
        "brief": digest_of("a brief"),
        "language": candidate.language,
        "files": candidate.files,
        "tunables": candidate.tunables,
        "lineage": candidate.lineage,
    }
    return Proposal(**{**fields, **changes})


def a_measurement(speedup: float = 1.5, **changes: Any) -> Measurement:
    """One workload, with an interval of 2 % to either side and the verdict that follows from it."""
    low, high = speedup * 0.98, speedup * 1.02
    fields: dict[str, Any] = {
        "workload": "n1024",
        "axes": {"N": 1024},
        "dtypes": {"T": "float32"},
        "baseline": "eager",
        "candidate_us": 15.0 / speedup,
        "baseline_us": 15.0,
        "speedup": speedup,
        "low": low,
        "high": high,
        "confidence": 0.99,
        "pairs": 12,
        "verdict": "faster" if low > 1 else "slower" if high < 1 else "same",
    }
    return Measurement(**{**fields, **changes})


def a_passed(
    candidate: Candidate | None = None, speedup: float = 1.5, *, purpose: Purpose = "search", **changes: Any
) -> Passed:
    """A candidate that is right, and `speedup` times as fast as the baseline."""
    fields: dict[str, Any] = {
        "candidate": (candidate or a_candidate()).digest,
        "target": a_target().digest,
        "purpose": purpose,
        "measurements": (a_measurement(speedup),),
        "environment": an_environment(),
    }
    return Passed(**{**fields, **changes})


def an_estimate(estimated_us: float = 12.0, **changes: Any) -> Estimate:
    """A call's time as a model sees it, a factor of three to either side."""
    fields: dict[str, Any] = {
        "workload": "n1024",
        "estimated_us": estimated_us,
        "low_us": estimated_us / 3,
        "high_us": estimated_us * 3,
        "bound": "memory",
        "parts": EstimateParts(
            memory_us=estimated_us - 3, cache_us=1.0, compute_us=0.5, instructions_us=0.5, spill_us=0.0, tail_us=0.0,
            launch_us=3.0,
        ),
        "launches": 1,
        "moved_bytes": 8192,
    }  # fmt: skip
    return Estimate(**{**fields, **changes})


def some_needs(**changes: Any) -> KernelNeeds:
    """A kernel without spills that fills half of a device."""
    fields: dict[str, Any] = {
        "kernel": "scale", "workloads": ("small",), "registers": 64, "spill_bytes": 0, "shared_bytes": 4096,
        "num_warps": 4, "blocks_per_multiprocessor": 8, "occupancy": 0.5, "tensor_core": "none",
    }  # fmt: skip
    return KernelNeeds(**{**fields, **changes})


def a_triaged(candidate: Candidate | None = None, estimated_us: float | None = 12.0, **changes: Any) -> Triaged:
    """A candidate against which nothing was found without its device; None for one that can't be estimated."""
    candidate = candidate or a_candidate()
    fields: dict[str, Any] = {
        "candidate": candidate.digest,
        "target": a_target().digest,
        "estimates": () if estimated_us is None else (an_estimate(estimated_us),),
        "estimated_us": estimated_us,
        "kernels": (some_needs(),),
        "triage": digest_of("triage", candidate.digest),
        "code": digest_of("compiled", candidate.digest),
        "environment": an_environment(),
    }
    return Triaged(**{**fields, **changes})


def a_failed(
    candidate: Candidate | None = None, stage: Stage = "build", *, purpose: Purpose = "search", **changes: Any
) -> Failed:
    """A candidate that failed at `stage`; without a candidate, a proposal that never became one."""
    fields: dict[str, Any] = {
        "candidate": candidate.digest if candidate else None,
        "target": a_target().digest,
        "purpose": purpose,
        "stage": stage,
        "diagnostics": (a_diagnostic(stage),),
        "environment": an_environment(),
    }
    return Failed(**{**fields, **changes})


def a_diagnostic(stage: Stage = "build") -> Diagnostic:
    """A finding that fits the stage."""
    if stage == "build":
        return CompileError(
            message="expected ';' before '}'", advice="add the semicolon", file="main.cpp", line=8, column=70
        )
    return Raised(message=f"the candidate raised at {stage}", advice="look at what it throws")


def a_calibration(**changes: Any) -> Calibration:
    """One baseline, timed on one workload."""
    fields: dict[str, Any] = {
        "target": a_target().digest,
        "times": {"n1024": (BaselineTime(baseline="eager", median_us=15.0),)},
        "environment": an_environment(),
    }
    return Calibration(**{**fields, **changes})


def an_event(kind: EventKind = "started", *, at: str = "2026-01-02T03:04:06+00:00", detail: str = "") -> Event:
    """Something that happened to a run."""
    return Event(kind=kind, at=at, detail=detail)


def a_run_spec(run: str = "double-20260102-030405-0001", **changes: Any) -> RunSpec:
    """A run of ten evaluations."""
    fields: dict[str, Any] = {
        "run": run,
        "created_at": "2026-01-02T03:04:05+00:00",
        "target": a_target(),
        "hardware": a_hardware(),
        "language": "cpp",
        "proposer": "tuner",
        "policy": "random",
        "seed": 0,
        "evals": 10,
        "workers": 1,
        "threads": 2,
        "kernelevolve": "0.1.0",
    }
    return RunSpec(**{**fields, **changes})
