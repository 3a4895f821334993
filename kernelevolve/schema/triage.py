"""What is found out about a candidate without the device that it is for."""

from typing import Literal

from pydantic import Field

from kernelevolve.schema.diagnostic import Diagnostic
from kernelevolve.schema.record import Record


class Instructions(Record):
    """Instructions in the code of a kernel (not how often they run)."""

    total: int
    tensor_core: int = Field(description="matrix multiply-adds: HMMA, HGMMA, UTCMMA, v_mfma and their like")
    vector_loads: int = Field(description="global loads of 16 bytes a thread")
    async_copies: int = Field(description="global to shared memory past the registers")
    local_memory: int = Field(description="loads and stores of spilled registers and local arrays")
    warpgroup: int = Field(0, description="of tensor_core: those that four warps issue together (HGMMA, UTCMMA)")
    tensor_operations: int = Field(0, description="of one warp, each instruction once; 0 where no shape is told")
    load_store: int = Field(0, description="loads, stores and atomics of global, shared and local memory; shuffles")
    global_bytes: int = Field(0, description="loaded and stored in global memory by a thread, each instruction once")


class Resources(Record):
    """What the compiled code of a kernel needs."""

    registers: int = Field(description="a thread; with AMD's accumulators, which share their file")
    accumulators: int = Field(0, description="of these, those that only matrix products use (AMD)")
    scalar_registers: int = Field(0, description="a wave (AMD)")
    spill_bytes: int = Field(description="stack a thread: spilled registers and local arrays")
    shared_bytes: int = Field(description="a block")
    num_warps: int
    num_stages: int | None = Field(None, description="of Triton's software pipeline; other languages have none")
    num_ctas: int = 1
    instructions: Instructions
    loop: Instructions | None = Field(
        None, description="of these, those of the innermost loop with tensor-core instructions; None for none"
    )


class TensorUse(Record):
    """A tensor that a launch is given; how much of it the kernel touches is not known."""

    storage: int = Field(description="number of its memory, by first use in the workload: views share it")
    bytes: int


class CompiledKernel(Record):
    """One launch on one workload, in one of its configurations, as it fits on the device."""

    workload: str
    launch: int = Field(description="position among the launches of the workload; configurations share it")
    kernel: str
    grid: tuple[int, int, int]
    configuration: dict[str, str] = Field(description="values of the constants (tl.constexpr)")
    resources: Resources
    blocks_per_multiprocessor: int = Field(description="resident at once; 0 where the kernel can't be launched")
    occupancy: float = Field(description="resident warps over the most that the device holds, 0 to 1")
    waves: float | None = Field(description="blocks over those that are resident at once; None where none can be")
    tensors: tuple[TensorUse, ...] = Field((), description="empty where they aren't known")
    code: str = Field("", description="digest of the code, without the places in the source; empty where not known")
    diagnostics: tuple[Diagnostic, ...] = Field((), description="what exceeds the device")


class KernelNeeds(Record):
    """What one compiled kernel needs, on the workloads for which it is the same code."""

    kernel: str
    workloads: tuple[str, ...]
    registers: int = Field(description="a thread")
    spill_bytes: int = Field(description="stack a thread")
    shared_bytes: int = Field(description="a block")
    num_warps: int = Field(description="a block")
    blocks_per_multiprocessor: int
    occupancy: float = Field(description="resident warps over the most that the device holds, 0 to 1")
    tensor_core: Literal["wgmma", "mma", "none"] = Field(
        description="instructions for matrix products: of a warpgroup, of a warp (or a wave), or none"
    )


class Triage(Record):
    """A candidate compiled for a device, and checked in an interpreter. No time in it is a kernel's."""

    candidate: str = Field(description="digest")
    target: str = Field(description="digest")
    hardware_key: str
    architecture: str
    versions: dict[str, str] = Field(description="package to version")
    sandbox: tuple[str, ...] = Field(description="walls that held the candidate")
    kernels: tuple[CompiledKernel, ...] = Field((), description="everything that would be launched")
    rejected: tuple[Diagnostic, ...] = Field((), description="configurations of a tuner that can't be used; others can")
    checked: tuple[str, ...] = Field((), description="workloads whose results were compared")
    unchecked: tuple[str, ...] = Field((), description="check workloads too large for the interpreter")
    hints: tuple[str, ...] = Field((), description="what a reader should look at")
    diagnostics: tuple[Diagnostic, ...] = ()
    seconds: dict[str, float] = Field(description="wall time by stage; what came from the cache took none")

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against trying it on the device; a launcher that can't be captured doesn't."""
        return all(finding.kind == "uncaptured" for finding in self.diagnostics)
