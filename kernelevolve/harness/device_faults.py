"""What torch, CUDA, HIP, Triton or tvm-ffi said when the device stopped a candidate, as a diagnostic."""

import re
from dataclasses import dataclass

from kernelevolve.schema import DeviceFault, Diagnostic, LimitExceeded

_NO_MEMORY = r"(CUDA|HIP)[^\n]*out of memory|OUT_OF_MEMORY|cudaErrorMemoryAllocation|hipErrorOutOfMemory"
_ALLOCATE_LESS = (
    "allocate no scratch buffer of the size of the problem, keep the one that is needed between calls, and never "
    "collect results of earlier calls"
)
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True)
class _Fault:
    name: str
    pattern: str
    message: str
    advice: str


_FAULTS = (
    _Fault(
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        r"uncorrectable ECC|ECC_UNCORRECTABLE|eccuncorrectable|uncorrectable NVLink",
        "the device's memory failed (uncorrectable ECC error)",
        "not the candidate's doing: the device is looked at before anything else runs on it",
    ),
    _Fault(
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        r"illegal memory access|ILLEGAL_ADDRESS|IllegalAddress|Memory access fault by GPU|MEMORY_APERTURE_VIOLATION",
        "an address outside every allocation was read or written",
        "mask loads and stores by the shape (the tail block), check strides and the index of the last element, and "
        "compute offsets beyond 2^31 elements in 64 bits",
    ),
    _Fault(
        "CUDA_ERROR_MISALIGNED_ADDRESS",
        r"misaligned address|MISALIGNED_ADDRESS|MisalignedAddress",
        "an address was not a multiple of the width of the access",
        "vector loads need rows whose size in bytes is a multiple of the vector's, and aligned offsets in shared "
        "memory: fall back to narrower loads where a shape doesn't allow them",
    ),
    _Fault(
        "CUDA_ERROR_ASSERT",
        r"device-side assert triggered|CUDA_ERROR_ASSERT|ErrorAssert\b",
        "an assertion in device code failed",
        "look at indices that come from data (gather, embedding, one-hot), or at the assertion in the kernel",
    ),
    _Fault(
        "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        r"illegal instruction was encountered|ILLEGAL_INSTRUCTION|IllegalInstruction|HSAIL operation resulted in",
        "the device met an instruction that it can't execute",
        "instructions of another architecture, or wgmma, tma and barriers used against their rules",
    ),
    _Fault(
        "CUDA_ERROR_INVALID_PC",
        r"invalid program counter|INVALID_PC|hardware stack error|HARDWARE_STACK_ERROR|operation not supported on "
        r"global/shared address space|INVALID_ADDRESS_SPACE",
        "the program counter, the stack or an address space was corrupted",
        "too deep a recursion, an array indexed beyond its end on the stack, or a shared pointer used as a global one",
    ),
    _Fault(
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        r"launch timed out|LAUNCH_TIMEOUT|LaunchTimeout",
        "the kernel ran longer than the device allows",
        "an endless loop, a deadlock between blocks (a barrier that not all reach), or far too slow",
    ),
    _Fault(
        "CUDA_ERROR_NO_BINARY_FOR_GPU",
        r"no kernel image is available|NO_BINARY_FOR_GPU|NoKernelImageForDevice|invalid device function|"
        r"InvalidDeviceFunction|device kernel image is invalid",
        "the kernel was not compiled for this device's architecture",
        "build for the architecture of the job's hardware; suffixed ones (sm_90a, sm_100a) run nowhere else",
    ),
    _Fault(
        "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        r"too many resources requested|LAUNCH_OUT_OF_RESOURCES|LaunchOutOfResources",
        "a block needs more registers or shared memory than a multiprocessor has",
        "fewer threads a block, fewer registers (__launch_bounds__), or less shared memory",
    ),
    _Fault(
        "CUDA_ERROR_INVALID_VALUE",
        r"invalid configuration argument|InvalidConfiguration|(CUDA|HIP)[^\n]*invalid argument|ERROR_INVALID_VALUE",
        "a launch was refused: grid, block or shared memory is out of range",
        "no dimension may be 0; a block has at most 1024 threads, a grid at most 65535 in y and z; more than 48 KiB of "
        "shared memory has to be asked for (cudaFuncSetAttribute)",
    ),
    _Fault("CUDA_ERROR_OUT_OF_MEMORY", _NO_MEMORY, "out of device memory", _ALLOCATE_LESS),
    _Fault(
        "CUDA_ERROR_STREAM_CAPTURE",
        r"operation not permitted when stream is capturing|STREAM_CAPTURE|StreamCapture",
        "something was done that can't be captured into a graph",
        "don't allocate, synchronise or copy to the host within run",
    ),
    _Fault(
        "CUDA_ERROR_SYSTEM",
        r"system not yet initialized|unsupported display driver|driver / cuda driver combination|busy or unavailable|"
        r"driver version is insufficient|driver on your system is too old|GPU is lost|fallen off the bus",
        "the device or its driver can't be used",
        "not the candidate's doing: check kernelevolve doctor",
    ),
    _Fault(
        "CUDA_ERROR_LAUNCH_FAILED",
        r"unspecified launch failure|CUDA_ERROR_LAUNCH_FAILED|cudaErrorLaunchFailure|hipErrorLaunchFailure",
        "the kernel died on the device",
        "usually a wild address in shared or local memory, or a barrier used against its rules: run it under "
        "compute-sanitizer",
    ),
    _Fault(
        "CUDA_ERROR_UNKNOWN",
        r"(CUDA|HIP) error: |Triton Error \[(CUDA|HIP)\]|CUDA_ERROR_|cudaError[A-Z]|hipError[A-Z]",
        "the device reported an error",
        "look at what was said",
    ),
)
"""The first that matches counts: the general ones stand last."""


def fault_of(text: str, workload: str | None, memory_bytes: int | None = None) -> Diagnostic | None:
    """The device's failure in an error's text; None where there is no sign of one.

    `memory_bytes` is the device's memory, for a text that doesn't say it.
    """
    where = f" on {workload}" if workload is not None else ""
    for find in (_out_of_resource, _out_of_memory):
        if found := find(text, where, workload, memory_bytes):
            return found
    for fault in _FAULTS:
        if re.search(fault.pattern, text):
            return DeviceFault(
                message=f"{fault.message}{where}: {_line(text, fault.pattern)}", advice=fault.advice, name=fault.name,
                workload=workload,
            )  # fmt: skip
    return None


def _out_of_resource(text: str, where: str, workload: str | None, _: int | None) -> LimitExceeded | None:
    """Triton's own refusal before a launch."""
    found = re.search(r"out of resource: ([\w ]+), Required: (\d+), Hardware limit: (\d+)", text)
    if found is None:
        return None
    resource = {"shared memory": "shared_memory", "threads": "threads", "registers": "registers"}.get(found[1])
    if resource is None:  # tensor memory, for instance, which is carved out like shared memory
        resource = "shared_memory"
    return LimitExceeded.model_validate(
        {
            "message": f"a launch needs {found[2]} of {found[1]}{where}; the device has {found[3]} for a block",
            "advice": "smaller blocks, fewer stages (num_stages), fewer warps",
            "resource": resource,
            "limit": float(found[3]),
            "workload": workload,
        }
    )


def _out_of_memory(text: str, where: str, workload: str | None, memory_bytes: int | None) -> LimitExceeded | None:
    if not re.search(_NO_MEMORY, text):
        return None
    told = re.search(r"total capacity of ([\d.]+) (KiB|MiB|GiB)", text)
    limit = float(told[1]) * _UNITS[told[2]] if told else memory_bytes
    if limit is None:
        return None
    return LimitExceeded(
        message=f"out of device memory{where}: {_line(text, _NO_MEMORY)}",
        advice=_ALLOCATE_LESS,
        resource="memory",
        limit=limit,
        workload=workload,
    )


def _line(text: str, pattern: str) -> str:
    """The line in which it is said."""
    return next((line.strip()[:300] for line in text.splitlines() if re.search(pattern, line)), text.strip()[:300])
