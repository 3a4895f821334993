"""Inputs and right answers of a judge's workloads, in memory that candidates can't change."""

import fcntl
from functools import cache
from random import SystemRandom
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kernelevolve.harness.access import HOST, Access
from kernelevolve.harness.blocks import HostBlock, make_block
from kernelevolve.harness.layout import CONSTANT, INPUT, lay_out
from kernelevolve.harness.oracle import Oracle, Truth
from kernelevolve.schema import Target, Workload

MOST_SLOTS = {"cpu": 16, "gpu": 64}
"""More where a batch's own overhead is larger."""

CHECK_SLOTS = 2
ROTATION_BYTES = {"cpu": 64 << 20, "gpu": 512 << 20}
"""Timed slots hold about this much in all, so that no call finds its inputs in a core's (or a device's) cache."""

TRUTH_BYTES = 4 << 30
"""Right answers that are kept on a device, in float64 four times as large as outputs in half precision; the others are
worked out anew whenever they are asked for."""

_SEAL_FUTURE_WRITE = 0x10
"""F_SEAL_FUTURE_WRITE (Linux 5.1): the judge's mapping stays writable, no other can be made so."""

_CHUNK = 1 << 22

_SAME_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_Words = npt.NDArray[Any]


class Arena:
    """Inputs and right answers of several workloads, made once and used for every candidate of this judge."""

    def __init__(self, target: Target, workloads: tuple[Workload, ...], oracle: Oracle, access: Access = HOST) -> None:
        slots = {w.name: slot_count(target, w) for w in workloads}
        self.target = target
        self.access = access
        self.layout = lay_out(target, workloads, slots)
        self._block = make_block(access, "inputs", self.layout.input_bytes)
        self._oracle = oracle
        self._inputs: list[list[dict[str, torch.Tensor]]] = []
        self._truths: dict[tuple[int, int], tuple[Truth, ...]] = {}
        """by workload and slot, as far as they are known and there is room for them"""
        for number, workload in enumerate(workloads):
            self._fill(number, workload)
        self._random = SystemRandom()
        self._generator = torch.Generator(access.torch_device).manual_seed(self._random.getrandbits(60))
        self._touched: set[tuple[int, int]] = set()
        self._undo: list[tuple[_Words, _Words, _Words, _Words]] = []
        self._draws = np.random.default_rng(self._random.getrandbits(128))
        self._prints: list[list[list[int]]] | None = None
        if isinstance(self._block, HostBlock):
            seals = _SEAL_FUTURE_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
            fcntl.fcntl(self._block.fd, fcntl.F_ADD_SEALS, seals)
        else:
            self._key = torch.randint(-(2**62), 2**62, (_CHUNK,), device=access.torch_device)
            self._prints = [[self._fingerprints(views) for views in slots] for slots in self._inputs]

    def _fill(self, number: int, workload: Workload) -> None:
        layout, oracle = self.layout.workloads[number], self._oracle
        constants: dict[str, torch.Tensor] = {}
        inputs = []
        for slot in range(layout.slots):
            made = {**oracle.inputs(workload), **constants}
            constants = {a.name: made[a.name] for a in layout.tensors(CONSTANT)}
            views = {}
            for argument in layout.tensors(INPUT, CONSTANT):
                views[argument.name] = self._block.view(argument, slot)
                views[argument.name].copy_(made[argument.name])
            inputs.append(views)
            if isinstance(self._block, HostBlock):
                self._truths[number, slot] = oracle.truths(made, workload)
        self._inputs.append(inputs)

    @property
    def fd(self) -> int:
        """Descriptor of the inputs; whoever gets it can only read."""
        return self._block.fd

    def inputs(self, workload: int, slot: int) -> dict[str, torch.Tensor]:
        """The tensors of one slot, by name."""
        return self._inputs[workload][slot]

    def change(self, workload: int, slot: int) -> None:
        """Replace one slab (an index of the first axis) of each varying floating input of a slot.

        What was there becomes the spare for the next change of that slab: making inputs takes longer than a call.
        """
        layout, views = self.layout.workloads[workload], self._inputs[workload][slot]
        spare = self._spare(workload)
        for argument in layout.tensors(INPUT):
            here = views[argument.name]
            if here.is_floating_point() and here.ndim and len(here):
                index = self._random.randrange(len(here))
                before = here[index].clone()
                here[index].copy_(spare[argument.name][index])
                spare[argument.name][index] = before
        self._truths.pop((workload, slot), None)
        if self._prints is not None:
            self._prints[workload][slot] = self._fingerprints(views)

    @cache  # noqa: B019  (an arena lives as long as its judge)
    def _spare(self, workload: int) -> dict[str, torch.Tensor]:
        """Inputs like those of the slots, which no candidate has seen."""
        return self._oracle.inputs(self.layout.workloads[workload].workload)

    def renew(self, workload: int, slot: int) -> None:
        """Other inputs where those of a slot lie, and another truth; constants stay as they are."""
        layout, views = self.layout.workloads[workload], self._inputs[workload][slot]
        made = self._oracle.inputs(layout.workload)
        for argument in layout.tensors(INPUT):
            views[argument.name].copy_(made[argument.name])
        self._truths.pop((workload, slot), None)
        if self._prints is not None:
            self._prints[workload][slot] = self._fingerprints(views)

    def change_constants(self, workload: int) -> None:
        """Replace an element in every row of each floating constant: what was made of them has to be made again.

        The truths are worked out again when they are asked for. Only for memory of this machine.
        """
        layout = self.layout.workloads[workload]
        if not layout.tensors(CONSTANT):
            return
        fresh = self._oracle.inputs(layout.workload)
        for argument in layout.tensors(CONSTANT):
            here, spare = self._inputs[workload][0][argument.name], fresh[argument.name]
            if spare.is_floating_point() and spare.ndim and spare.numel():
                where = torch.randint(spare.shape[-1], (*spare.shape[:-1], 1), generator=self._generator)
                here.scatter_(-1, where, spare.gather(-1, where))
        for slot in range(layout.slots):
            self._truths.pop((workload, slot), None)

    def touch(self, workload: int, slot: int, *, same: bool) -> bool:
        """Write an element in every row of each varying floating input of a slot, until `restore`.

        It gets another element's value or, for comparison, its own: to caches both are the same, and the truth is
        worked out anew for both. Cheap enough to be done before every call. False where there is nothing to touch, or
        it lies on a device.
        """
        tensors = self._rows(workload, slot)
        for rows in tensors:
            every = np.arange(len(rows))
            here, there = (self._draws.integers(rows.shape[1], size=len(rows)) for _ in range(2))
            self._undo.append((rows, every, here, rows[every, here]))
            rows[every, here] = rows[every, here if same else there]
        if not same:
            self._touched.add((workload, slot))
        return bool(tensors)

    def restore(self) -> None:
        """Undo every touch."""
        while self._undo:
            rows, every, here, values = self._undo.pop()
            rows[every, here] = values
        self._touched.clear()

    @cache  # noqa: B019  (an arena lives as long as its judge)
    def _rows(self, workload: int, slot: int) -> tuple[_Words, ...]:
        """The varying floating inputs of a slot as matrices of integers, one row along their last axis, not copied."""
        if not isinstance(self._block, HostBlock):
            return ()
        tensors = [self._inputs[workload][slot][a.name] for a in self.layout.workloads[workload].tensors(INPUT)]
        floats = [t for t in tensors if t.is_floating_point() and t.numel() and t.ndim and t.shape[-1] > 1]
        return tuple(t.view(_SAME_SIZE[t.element_size()]).view(-1, t.shape[-1]).numpy() for t in floats)

    def truth(self, workload: int, slot: int) -> tuple[Truth, ...]:
        """The right answer to the inputs of a slot as they are now."""
        place, now = (workload, slot), (workload, slot) not in self._touched
        if now and place in self._truths:
            return self._truths[place]
        found = self._oracle.truths(self._inputs[workload][slot], self.layout.workloads[workload].workload)
        if now:
            self._truths[place] = found
            while not isinstance(self._block, HostBlock) and self._kept_bytes() > TRUTH_BYTES:
                self._truths.pop(next(iter(self._truths)))
        return found

    def _kept_bytes(self) -> int:
        tensors = (t for truths in self._truths.values() for truth in truths for t in (truth.expected, truth.allowed))
        return sum(t.nbytes for t in tensors if t is not None)

    def intact(self) -> bool:
        """Whether the inputs are what they were: pages of a device may be writable to whoever has them."""
        if self._prints is None:
            return True
        pairs = zip(self._prints, self._inputs, strict=True)
        return all([self._fingerprints(views) for views in slots] == prints for prints, slots in pairs)

    def _fingerprints(self, views: dict[str, torch.Tensor]) -> list[int]:
        """One for each piece of a slot's inputs: a sum of its bytes, each times a secret number."""
        pieces = (torch.split(value.reshape(-1).view(torch.uint8), _CHUNK) for value in views.values())
        return [int((piece.long() * self._key[: len(piece)]).sum()) for value in pieces for piece in value]

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
    return int(min(MOST_SLOTS[workload.device], max(4, ROTATION_BYTES[workload.device] // max(varying, 1))))
