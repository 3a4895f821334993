"""Pieces of memory that a judge owns and a runner is handed as a descriptor: of this machine, or of a device."""

import mmap
import os
from typing import Protocol

import torch

from kernelevolve.errors import JudgeError
from kernelevolve.harness import cuda_driver
from kernelevolve.harness.access import Access
from kernelevolve.harness.layout import Argument
from kernelevolve.harness.oracle import torch_dtype

POISON = (0xFF, 0x5A)
"""In even slots NaN in every floating type, -1 in every signed one. In odd ones a number: NaN is an answer too."""


class Block(Protocol):
    """A piece of memory that holds the tensors of a layout."""

    fd: int
    """descriptor to hand on"""

    def view(self, argument: Argument, slot: int) -> torch.Tensor:
        """One tensor of one slot, without a copy."""

    def poison(self, argument: Argument, slot: int) -> None:
        """Fill one tensor of one slot with its `POISON`."""

    def close(self) -> None:
        """Give the memory back."""


class HostBlock:
    """Shared memory of this machine; every page is there from the start."""

    def __init__(self, name: str, size: int) -> None:
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, max(size, 1))
            self.memory = mmap.mmap(self.fd, max(size, 1), flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except OSError as error:
            os.close(self.fd)
            raise JudgeError(
                f"no shared memory for {size >> 20} MiB of {name}: {error}",
                remedy="free memory, raise the limits (ulimit -a), or use fewer workers",
            ) from error

    def view(self, argument: Argument, slot: int) -> torch.Tensor:
        """One tensor of one slot, without a copy."""
        dtype = torch_dtype(argument.dtype)
        if argument.size == 0:
            return torch.empty(argument.shape, dtype=dtype)
        count = argument.size // dtype.itemsize
        offset = argument.offset + slot * argument.stride
        return torch.frombuffer(self.memory, dtype=dtype, count=count, offset=offset).view(argument.shape)

    def poison(self, argument: Argument, slot: int) -> None:
        """Fill one tensor of one slot with its `POISON`."""
        start = argument.offset + slot * argument.stride
        self.memory[start : start + argument.size] = bytes([POISON[slot % 2]]) * argument.size

    def close(self) -> None:
        """Give the descriptor back; the mapping goes with the last tensor that looks into it."""
        os.close(self.fd)


class DeviceBlock:
    """Memory of a CUDA device."""

    def __init__(self, name: str, size: int) -> None:
        device = torch.cuda.current_device()
        torch.cuda.synchronize()  # makes the context, where there is none yet
        try:
            self._mapping, self.fd = cuda_driver.allocate(size, device)
        except cuda_driver.DriverError as error:
            raise JudgeError(
                f"no device memory for {size >> 20} MiB of {name}: {error}",
                remedy="end what else uses the device, or use fewer workers",
            ) from error
        self._bytes = torch.as_tensor(self._mapping, device=f"cuda:{device}")

    def view(self, argument: Argument, slot: int) -> torch.Tensor:
        """One tensor of one slot, without a copy."""
        return device_view(self._bytes, argument, slot)

    def poison(self, argument: Argument, slot: int) -> None:
        """Fill one tensor of one slot with its `POISON`; done once the device's queue has got there."""
        start = argument.offset + slot * argument.stride
        self._bytes[start : start + argument.size].fill_(POISON[slot % 2])

    def close(self) -> None:
        """Unmap: no tensor may look into it any more."""
        torch.cuda.synchronize()
        os.close(self.fd)
        self._mapping.close()


def device_view(memory: torch.Tensor, argument: Argument, slot: int) -> torch.Tensor:
    """A tensor of a layout in device memory that is given as bytes."""
    start = argument.offset + slot * argument.stride
    return memory[start : start + argument.size].view(torch_dtype(argument.dtype)).view(argument.shape)


def make_block(access: Access, name: str, size: int) -> Block:
    """A block for that kind of memory. Raises `JudgeError` where there is no room."""
    return DeviceBlock(name, size) if access.memory == "mapped" else HostBlock(name, size)
