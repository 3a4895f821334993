"""What is said when a device stops a candidate: the texts of torch, the CUDA and HIP runtimes, Triton and ROCr."""

import pytest

from kernelevolve.harness.device_faults import fault_of
from kernelevolve.schema import DeviceFault, LimitExceeded

TORCH = """\
torch.AcceleratorError: CUDA error: {}
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""

FAULTS = [
    (TORCH.format("an illegal memory access was encountered"), "ILLEGAL_ADDRESS"),
    ("RuntimeError: Triton Error [CUDA]: an illegal memory access was encountered", "ILLEGAL_ADDRESS"),
    ("RuntimeError: HIP error: an illegal memory access was encountered", "ILLEGAL_ADDRESS"),
    ("InternalError: CUDA: unspecified launch failure (cudaErrorLaunchFailure)", "LAUNCH_FAILED"),
    ("Check failed: (e == cudaSuccess) is false: CUDA: cudaErrorIllegalAddress", "ILLEGAL_ADDRESS"),
    ("Memory access fault by GPU node-4 (Agent handle: 0x55d0) on address 0x7f0a. Reason: Unknown.", "ILLEGAL_ADDRESS"),
    (TORCH.format("misaligned address"), "MISALIGNED_ADDRESS"),
    (TORCH.format("device-side assert triggered"), "ASSERT"),
    (TORCH.format("unspecified launch failure"), "LAUNCH_FAILED"),
    (TORCH.format("an illegal instruction was encountered"), "ILLEGAL_INSTRUCTION"),
    (TORCH.format("uncorrectable ECC error encountered"), "ECC_UNCORRECTABLE"),
    (TORCH.format("no kernel image is available for execution on the device"), "NO_BINARY_FOR_GPU"),
    (TORCH.format("too many resources requested for launch"), "LAUNCH_OUT_OF_RESOURCES"),
    (TORCH.format("invalid configuration argument"), "INVALID_VALUE"),
    ("RuntimeError: Triton Error [CUDA]: invalid argument", "INVALID_VALUE"),
    (TORCH.format("the launch timed out and was terminated"), "LAUNCH_TIMEOUT"),
    (TORCH.format("invalid program counter"), "INVALID_PC"),
    (TORCH.format("operation not permitted when stream is capturing"), "STREAM_CAPTURE"),
    ("RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized", "SYSTEM"),
    (TORCH.format("something that nobody has heard of"), "UNKNOWN"),
    ("RuntimeError: Triton Error [CUDA]: out of memory", "OUT_OF_MEMORY"),
]


@pytest.mark.parametrize(("text", "name"), FAULTS, ids=[f"{n} {i}" for i, (_, n) in enumerate(FAULTS)])
def test_a_fault_is_named_placed_and_comes_with_advice(text, name):
    found = fault_of(text, "gpu-bf16-128x16384-k64")
    assert isinstance(found, DeviceFault)
    assert found.name == f"CUDA_ERROR_{name}"
    assert found.workload == "gpu-bf16-128x16384-k64"
    assert "gpu-bf16-128x16384-k64" in found.message
    assert len(found.advice) > 10


def test_the_line_that_says_it_is_quoted_and_not_the_boiler_plate():
    found = fault_of(TORCH.format("misaligned address"), None)
    assert found is not None
    assert found.message.endswith("torch.AcceleratorError: CUDA error: misaligned address")


def test_running_out_of_memory_is_a_limit_with_the_size_that_was_told():
    text = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 256.00 GiB. GPU 0 has a total capacity of "
        "79.11 GiB of which 78.59 GiB is free. Including non-PyTorch memory, this process has 524.00 MiB memory in use."
    )
    found = fault_of(text, "w")
    assert isinstance(found, LimitExceeded)
    assert (found.resource, found.workload) == ("memory", "w")
    assert found.limit == pytest.approx(79.11 * 2**30)


def test_running_out_of_memory_without_a_size_takes_the_device_s():
    found = fault_of("RuntimeError: Triton Error [CUDA]: out of memory", "w", memory_bytes=80 << 30)
    assert isinstance(found, LimitExceeded)
    assert found.limit == 80 << 30


def test_triton_s_refusal_tells_what_is_needed_and_what_there_is():
    text = (
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 262144, Hardware limit: "
        "232448. Reducing block sizes or `num_stages` may help."
    )
    found = fault_of(text, None)
    assert isinstance(found, LimitExceeded)
    assert (found.resource, found.limit) == ("shared_memory", 232448)
    assert "262144" in found.message


@pytest.mark.parametrize(
    "text", ["", "ValueError: invalid argument: k", "MemoryError: out of memory", "TypeError: run() takes 3 arguments",
             "AssertionError: shapes differ"],
)  # fmt: skip
def test_what_the_host_says_is_no_fault_of_the_device(text):
    assert fault_of(text, "w") is None
