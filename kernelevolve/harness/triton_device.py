"""A GPU that isn't there: what Triton and torch answer about it inside a candidate's process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.amd.compiler import HIPBackend
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from kernelevolve.hardware.devices import Gpu


def compile_target(gpu: Gpu) -> Any:
    """Triton's name for the device."""
    if gpu.vendor == "amd":
        return GPUTarget("hip", gpu.architecture, gpu.warp_size)
    major, minor = gpu.capability
    return GPUTarget("cuda", major * 10 + minor, gpu.warp_size)


class AbsentDriver:
    """As much of a driver as compiling and choosing a configuration ask for; it launches nothing."""

    def __init__(self, gpu: Gpu) -> None:
        self._target = compile_target(gpu)
        properties = {
            "max_shared_mem": gpu.shared_per_block, "multiprocessor_count": gpu.multiprocessors,
            "max_num_regs": gpu.registers_per_multiprocessor, "warpSize": gpu.warp_size, "warp_size": gpu.warp_size,
            "sm_clock_rate": 0, "mem_clock_rate": 0, "mem_bus_width": 0, "arch": gpu.architecture,
        }  # fmt: skip
        self.utils = SimpleNamespace(get_device_properties=lambda _device: dict(properties))
        self.binary_ext = "hsaco" if gpu.vendor == "amd" else "cubin"

    def get_current_target(self) -> Any:
        """The device to compile for."""
        return self._target

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def set_current_device(self, _device: int) -> None:
        """There is only one."""

    def get_current_stream(self, _device: int | None = None) -> int:
        """The default stream."""
        return 0

    def get_active_torch_device(self) -> torch.device:
        """The device by torch's name."""
        return torch.device("cuda", 0)

    def get_device_interface(self) -> Any:
        """Where torch keeps what belongs to the device."""
        return torch.cuda

    def get_benchmarker(self) -> Callable[..., list[float]]:
        """Calls once, so that every configuration of a tuner comes by, and finds all equally fast."""

        def bench(call: Callable[[], object], quantiles: Sequence[float] | None = None, **_: object) -> list[float]:
            call()
            return [1.0] * len(quantiles or (1,))

        return bench

    def get_empty_cache_for_benchmark(self) -> torch.Tensor:
        """What a benchmark clears the caches with."""
        return torch.empty(1)

    def clear_cache(self, _cache: torch.Tensor) -> None:
        """There is none."""


@contextmanager
def pretending(gpu: Gpu) -> Iterator[None]:
    """Let Triton and torch believe that this device is here."""
    properties = SimpleNamespace(
        name=gpu.product, major=gpu.capability[0], minor=gpu.capability[1], total_memory=gpu.memory_bytes,
        multi_processor_count=gpu.multiprocessors, warp_size=gpu.warp_size, gcnArchName=gpu.architecture,
        regs_per_multiprocessor=gpu.registers_per_multiprocessor, L2_cache_size=50 << 20,
        shared_memory_per_block=48 << 10, shared_memory_per_block_optin=gpu.shared_per_block,
        shared_memory_per_multiprocessor=gpu.shared_per_multiprocessor,
        max_threads_per_multi_processor=gpu.warps_per_multiprocessor * gpu.warp_size,
    )  # fmt: skip
    stream = SimpleNamespace(cuda_stream=0, wait_stream=lambda *_: None, synchronize=lambda: None)
    answers: dict[str, Callable[..., object]] = {
        "get_device_properties": lambda *_, **__: properties, "is_available": lambda: True,
        "device_count": lambda: 1, "current_device": lambda: 0, "set_device": lambda *_: None,
        "synchronize": lambda *_, **__: None, "get_device_capability": lambda *_, **__: gpu.capability,
        "get_device_name": lambda *_, **__: gpu.product, "current_stream": lambda *_, **__: stream,
        "default_stream": lambda *_, **__: stream, "_lazy_init": lambda: None, "_exchange_device": lambda _: 0,
        "_maybe_exchange_device": lambda _: 0,
    }  # fmt: skip
    before = dict(vars(driver))  # which of its attributes is the active one differs between versions
    driver.set_active(AbsentDriver(gpu))
    try:
        with ExitStack() as stack:
            for name, answer in answers.items():
                stack.enter_context(patch.object(torch.cuda, name, answer))
            if hasattr(HIPBackend, "path_to_rocm_lld"):
                # Triton 3.4 links with a tool of ROCm's, which need not be here: what is looked at is the assembly.
                stack.enter_context(patch.object(HIPBackend, "make_hsaco", lambda *_: b""))
                stack.enter_context(patch.object(HIPBackend, "hash", lambda self: str(self.target)))
            yield
    finally:
        vars(driver).update(before)


def versions() -> dict[str, str]:
    """Of what compiles and interprets."""
    return {"torch": torch.__version__, "triton": triton.__version__}
