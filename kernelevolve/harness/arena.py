"""Shared memory that a judge owns: inputs that nobody else can write, and outputs for one runner each."""

import fcntl
import mmap
import os
from dataclasses import dataclass

import torch

from kernelevolve.errors import JudgeError
from kernelevolve.harness.layout import CONSTANT, INPUT, OUTPUT, Argument, Layout, lay_out
from kernelevolve.harness.oracle import Oracle, Truth, torch_dtype
from kernelevolve.schema import Target, Workload

MOST_SLOTS = 16
CHECK_SLOTS = 2
ROTATION_BYTES = 64 << 20
"""Timed slots hold about this much in all, so that no call finds its inputs in a core's own cache."""

_ADD_SEALS, _SEAL_FUTURE_WRITE = fcntl.F_ADD_SEALS, 0x10
"""F_SEAL_FUTURE_WRITE (Linux 5.1): the judge's mapping stays writable, no other can be made so."""


@dataclass(frozen=True)
class Block:
    """A piece of shared memory: its descriptor to hand on, and the judge's own mapping."""

    fd: int
    memory: mmap.mmap

    @staticmethod
    def make(name: str, size: int) -> "Block":
        """A zeroed block; every page is there from the start. Raises `JudgeError` where there is no room."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, max(size, 1))
            return Block(fd, mmap.mmap(fd, max(size, 1), flags=mmap.MAP_SHARED | mmap.MAP_POPULATE))
        except OSError as error:
            os.close(fd)
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

    def close(self) -> None:
        """Give the descriptor back; the mapping goes with the last tensor that looks into it."""
        os.close(self.fd)


class Outputs:
    """The outputs of one runner: nobody else's answers lie there."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.block = Block.make("outputs", layout.output_bytes)

    def poison(self, workload: int, slot: int) -> None:
        """Fill with 0xFF: NaN in every floating type, -1 in every signed one."""
        for argument in self._layout.workloads[workload].tensors(OUTPUT):
            start = argument.offset + slot * argument.stride
            self.block.memory[start : start + argument.size] = b"\xff" * argument.size

    def read(self, workload: int, slot: int) -> dict[str, torch.Tensor]:
        """What lies there now, by output name, without a copy."""
        arguments = self._layout.workloads[workload].tensors(OUTPUT)
        return {argument.name: self.block.view(argument, slot) for argument in arguments}

    def close(self) -> None:
        """Give the memory back."""
        self.block.close()


class Arena:
    """Inputs and right answers of several workloads, made once and used for every candidate of this judge."""

    def __init__(self, target: Target, workloads: tuple[Workload, ...], oracle: Oracle) -> None:
        slots = {w.name: slot_count(target, w) for w in workloads}
        self.target = target
        self.layout = lay_out(target, workloads, slots)
        self._block = Block.make("inputs", self.layout.input_bytes)
        self._inputs: list[list[dict[str, torch.Tensor]]] = []
        self.truths: list[list[tuple[Truth, ...]]] = []
        for number, workload in enumerate(workloads):
            self._fill(number, workload, oracle)
        fcntl.fcntl(self._block.fd, _ADD_SEALS, _SEAL_FUTURE_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)

    def _fill(self, number: int, workload: Workload, oracle: Oracle) -> None:
        layout = self.layout.workloads[number]
        constants: dict[str, torch.Tensor] = {}
        inputs, truths = [], []
        for slot in range(layout.slots):
            made = {**oracle.inputs(workload), **constants}
            constants = {a.name: made[a.name] for a in layout.tensors(CONSTANT)}
            views = {}
            for argument in layout.tensors(INPUT, CONSTANT):
                views[argument.name] = self._block.view(argument, slot)
                views[argument.name].copy_(made[argument.name])
            inputs.append(views)
            truths.append(oracle.truths(made, workload))
        self._inputs.append(inputs)
        self.truths.append(truths)

    @property
    def fd(self) -> int:
        """Descriptor of the inputs; whoever gets it can only read."""
        return self._block.fd

    def inputs(self, workload: int, slot: int) -> dict[str, torch.Tensor]:
        """The tensors of one slot, by name."""
        return self._inputs[workload][slot]

    def close(self) -> None:
        """Give the memory back."""
        self._inputs.clear()
        self._block.close()


def slot_count(target: Target, workload: Workload) -> int:
    """How many different inputs a workload rotates through."""
    if workload.role == "check":
        return CHECK_SLOTS
    varying = sum(target.tensor_bytes(t, workload) for t in target.inputs if not t.constant)
    varying += sum(target.tensor_bytes(t, workload) for t in target.outputs)
    return int(min(MOST_SLOTS, max(4, ROTATION_BYTES // max(varying, 1))))
