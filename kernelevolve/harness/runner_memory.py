"""A Python runner's end of the memory that its judge owns: the arguments of every call, made once.

Imported by runners only, beside the code that they hold.
"""

import mmap
import os
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from kernelevolve.harness import cuda_driver
from kernelevolve.harness.access import Memory
from kernelevolve.harness.blocks import device_view
from kernelevolve.harness.layout import CONSTANT, INPUT, OUTPUT, SCALAR, Argument, Layout
from kernelevolve.harness.oracle import torch_dtype

Calls = list[list[tuple[Any, ...]]]
"""The arguments of `run`, by workload and slot: tensors and integers."""


class RunnerMemory(Protocol):
    """What a runner's calls work on."""

    calls: Calls

    def renew(self, workload: int, slots: Sequence[int]) -> None:
        """Bring what the judge has changed in these slots' inputs to where calls see it."""

    def upload(self, workload: int, slots: Sequence[int]) -> None:
        """Bring what the judge wrote into these slots' outputs to where calls see it."""

    def download(self, workload: int, slots: Sequence[int]) -> None:
        """Bring these slots' outputs to where the judge sees them."""

    def nudge(self) -> None:
        """Let the device do next to nothing for this process, as a measure of what being called costs."""

    def synchronize(self) -> None:
        """Return once every call has done its work."""


def open_memory(memory: Memory, torch_device: str, layout: Layout, inputs: int, outputs: int) -> RunnerMemory:
    """The memory behind two descriptors, which are closed once it is mapped."""
    if memory == "mapped":
        return MappedMemory(layout, inputs, outputs)
    shared = SharedMemory(layout, inputs, outputs)
    return CopiedMemory(shared, layout, torch_device) if memory == "copied" else shared


class SharedMemory:
    """Pages of the judge's, without a copy."""

    def __init__(self, layout: Layout, inputs: int, outputs: int) -> None:
        read_only = map_block(inputs, mmap.PROT_READ)
        self.calls = slot_arguments(layout, read_only, map_block(outputs, mmap.PROT_READ | mmap.PROT_WRITE))

    def renew(self, workload: int, slots: Sequence[int]) -> None:
        """It is there already."""

    def upload(self, workload: int, slots: Sequence[int]) -> None:
        """It is there already."""

    def download(self, workload: int, slots: Sequence[int]) -> None:
        """It is there already."""

    def nudge(self) -> None:
        """There is no device."""

    def synchronize(self) -> None:
        """A call of a CPU kernel has done its work when it returns."""


class CopiedMemory:
    """Copies on a device of what lies in pages of the judge's. Inputs are copied once."""

    def __init__(self, shared: SharedMemory, layout: Layout, torch_device: str) -> None:
        self._shared = shared
        self._outputs = [[i for i, a in enumerate(w.arguments) if a.kind == OUTPUT] for w in layout.workloads]
        self._inputs = [[i for i, a in enumerate(w.arguments) if a.kind == INPUT] for w in layout.workloads]
        self._on_device = torch_device != "cpu"
        self.calls = []
        for workload, calls in zip(layout.workloads, shared.calls, strict=True):
            constants = {
                i: calls[0][i].to(torch_device, copy=True)
                for i, a in enumerate(workload.arguments) if a.kind == CONSTANT
            }  # fmt: skip
            self.calls.append([
                tuple(
                    constants.get(i, v if isinstance(v, int) else v.to(torch_device, copy=True))
                    for i, v in enumerate(call)
                )
                for call in calls
            ])  # fmt: skip

    def renew(self, workload: int, slots: Sequence[int]) -> None:
        """Copy the varying inputs' bytes onto the device."""
        for slot in slots:
            for place in self._inputs[workload]:
                self.calls[workload][slot][place].copy_(self._shared.calls[workload][slot][place])
        self.synchronize()

    def upload(self, workload: int, slots: Sequence[int]) -> None:
        """Copy the outputs' bytes, poison as a rule, onto the device."""
        self._copy(self._shared.calls, self.calls, workload, slots)

    def download(self, workload: int, slots: Sequence[int]) -> None:
        """Copy the outputs' bytes back."""
        self._copy(self.calls, self._shared.calls, workload, slots)

    def _copy(self, source: Calls, target: Calls, workload: int, slots: Sequence[int]) -> None:
        for slot in slots:
            # A packed constant may stand before the outputs: count from the end.
            for place in range(1, len(self._outputs[workload]) + 1):
                target[workload][slot][-place].copy_(source[workload][slot][-place])
        self.synchronize()

    def nudge(self) -> None:
        """One tiny launch."""
        if self._on_device:
            torch.zeros(1, device="cuda")

    def synchronize(self) -> None:
        """Wait for all streams of the device."""
        if self._on_device:
            torch.cuda.synchronize()


class MappedMemory:
    """Device memory of the judge's, without a copy; inputs read-only where the driver can do that."""

    def __init__(self, layout: Layout, inputs: int, outputs: int) -> None:
        torch.cuda.synchronize()  # makes the context
        device = torch.cuda.current_device()
        blocks = []
        for descriptor, size, writable in ((inputs, layout.input_bytes, False), (outputs, layout.output_bytes, True)):
            mapping = cuda_driver.attach(descriptor, cuda_driver.rounded(size, device), device, writable=writable)
            os.close(descriptor)
            blocks.append(torch.as_tensor(mapping, device=f"cuda:{device}"))
        self.calls = [
            [tuple(_device_value(a, slot, *blocks) for a in workload.arguments) for slot in range(workload.slots)]
            for workload in layout.workloads
        ]

    def renew(self, workload: int, slots: Sequence[int]) -> None:
        """It is there already."""

    def upload(self, workload: int, slots: Sequence[int]) -> None:
        """It is there already."""

    def download(self, workload: int, slots: Sequence[int]) -> None:
        """It is there already."""

    def nudge(self) -> None:
        """One tiny launch."""
        torch.zeros(1, device="cuda")

    def synchronize(self) -> None:
        """Wait for all streams of the device."""
        torch.cuda.synchronize()


def _device_value(argument: Argument, slot: int, inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor | int:
    if argument.kind == SCALAR:
        return argument.value
    return device_view(outputs if argument.kind == OUTPUT else inputs, argument, slot)


def map_block(fd: int, protection: int) -> mmap.mmap | None:
    """A block of the judge's shared memory; None for an empty one."""
    size = os.fstat(fd).st_size
    return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=protection) if size else None


def slot_arguments(layout: Layout, inputs: mmap.mmap | None, outputs: mmap.mmap | None) -> Calls:
    """The arguments of `run`, by workload and slot: tensors without a copy, and integers."""

    def value(a: Argument, slot: int) -> torch.Tensor | int:
        if a.kind == SCALAR:
            return a.value
        dtype = torch_dtype(a.dtype)
        count = a.size // dtype.itemsize
        memory = outputs if a.kind == OUTPUT else inputs
        if count == 0 or memory is None:
            return torch.empty(a.shape, dtype=dtype)
        return torch.frombuffer(memory, dtype=dtype, count=count, offset=a.offset + slot * a.stride).view(a.shape)

    return [
        [tuple(value(a, slot) for a in workload.arguments) for slot in range(workload.slots)]
        for workload in layout.workloads
    ]
