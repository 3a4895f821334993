"""What triage finds, as an evaluation: a candidate failed, or there is nothing against trying it on the device."""

from pathlib import Path

from kernelevolve.hardware import devices
from kernelevolve.hardware.devices import Gpu
from kernelevolve.harness.estimate import estimates, geometric_mean
from kernelevolve.harness.triage import triage
from kernelevolve.schema import (
    CompiledKernel,
    Diagnostic,
    Environment,
    Estimate,
    Evaluation,
    Failed,
    Job,
    KernelNeeds,
    Stage,
    StageCosts,
    Triage,
    Triaged,
    digest_of,
)

_MOST_KERNELS = 12
"""That an evaluation tells of: a reader needs no more."""
_DEVICE_LIMITS = ("shared_memory", "registers", "threads", "grid")


def triaged(job: Job) -> Evaluation:
    """Triage the job's candidate for the job's hardware. Raises what `harness.triage.triage` raises."""
    gpu = devices.of(job.hardware)
    return verdict(triage(job.candidate, job.target, gpu, Path(job.cache_dir)), job, gpu)


def verdict(found: Triage, job: Job, gpu: Gpu) -> Evaluation:
    """The evaluation that the findings amount to; the estimates are worked out here. Pure."""
    environment = Environment(
        hardware_key=found.hardware_key, threads=job.threads, versions=found.versions, sandbox=found.sandbox
    )
    spent = found.seconds
    costs = StageCosts(
        build_s=spent.get("compile", 0.0), check_s=spent.get("interpret", 0.0), total_s=spent.get("total", 0.0)
    )
    if not found.passed:
        return Failed(
            candidate=found.candidate, target=found.target, purpose=job.purpose, stage=_stage(found),
            diagnostics=found.diagnostics, environment=environment, costs=costs,
        )  # fmt: skip
    times = estimates(found, job.target, gpu, job.hardware.ceilings)
    return Triaged(
        candidate=found.candidate, target=found.target, purpose=job.purpose,
        estimates=tuple(e for e in times if isinstance(e, Estimate)), estimated_us=geometric_mean(times),
        kernels=_needs(found),
        diagnostics=found.diagnostics, triage=digest_of("triage", found.model_dump(mode="json", exclude={"seconds"})),
        code=_code(found), environment=environment, costs=costs,
    )  # fmt: skip


def _needs(found: Triage) -> tuple[KernelNeeds, ...]:
    """Of configurations that can be used; the same code is told once, whatever launches it."""
    different: dict[tuple[str, str, int], list[CompiledKernel]] = {}
    for kernel in found.kernels:
        if not kernel.diagnostics:
            different.setdefault((kernel.kernel, kernel.code, kernel.resources.shared_bytes), []).append(kernel)
    return tuple(_need(same) for same in different.values())[:_MOST_KERNELS]


def _need(same: list[CompiledKernel]) -> KernelNeeds:
    first, needs = same[0], same[0].resources
    counts = needs.instructions
    return KernelNeeds(
        kernel=first.kernel, workloads=tuple(dict.fromkeys(k.workload for k in same)), registers=needs.registers,
        spill_bytes=needs.spill_bytes, shared_bytes=needs.shared_bytes, num_warps=needs.num_warps,
        blocks_per_multiprocessor=first.blocks_per_multiprocessor, occupancy=first.occupancy,
        tensor_core="none" if not counts.tensor_core else "wgmma" if counts.warpgroup else "mma",
    )  # fmt: skip


def _stage(found: Triage) -> Stage:
    """Where the first finding that speaks against the candidate came up."""
    first: Diagnostic = next(d for d in found.diagnostics if d.kind != "uncaptured")
    if first.kind == "parse":
        return "parse"
    if first.kind == "compile" or (first.kind == "limit" and first.resource in _DEVICE_LIMITS):
        return "build"
    return "check" if found.kernels else "build"


def _code(found: Triage) -> str | None:
    """Digest of all that would run: candidates that share it are one kernel, whatever their sources look like."""
    if found.diagnostics or not found.kernels or not all(k.code for k in found.kernels):
        return None
    launches = [(k.workload, k.launch, k.grid, k.code, k.resources.num_warps, k.resources.shared_bytes)
                for k in found.kernels if not k.diagnostics]  # fmt: skip
    return digest_of("launches", sorted(launches))
