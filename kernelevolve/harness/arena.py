"""Inputs and right answers of a judge's workloads, in memory that candidates can't change."""

import fcntl

import torch

from kernelevolve.harness.access import HOST, Access
from kernelevolve.harness.blocks import HostBlock, make_block
from kernelevolve.harness.layout import CONSTANT, INPUT, lay_out
from kernelevolve.harness.oracle import Oracle, Truth
from kernelevolve.schema import Target, Workload

MOST_SLOTS = 16
CHECK_SLOTS = 2
ROTATION_BYTES = {"cpu": 64 << 20, "gpu": 512 << 20}
"""Timed slots hold about this much in all, so that no call finds its inputs in a core's (or a device's) cache."""

_SEAL_FUTURE_WRITE = 0x10
"""F_SEAL_FUTURE_WRITE (Linux 5.1): the judge's mapping stays writable, no other can be made so."""

_CHUNK = 1 << 22


class Arena:
    """Inputs and right answers of several workloads, made once and used for every candidate of this judge."""

    def __init__(self, target: Target, workloads: tuple[Workload, ...], oracle: Oracle, access: Access = HOST) -> None:
        slots = {w.name: slot_count(target, w) for w in workloads}
        self.target = target
        self.access = access
        self.layout = lay_out(target, workloads, slots)
        self._block = make_block(access, "inputs", self.layout.input_bytes)
        self._inputs: list[list[dict[str, torch.Tensor]]] = []
        self.truths: list[list[tuple[Truth, ...]]] = []
        for number, workload in enumerate(workloads):
            self._fill(number, workload, oracle)
        self._prints: list[int] | None = None
        if isinstance(self._block, HostBlock):
            seals = _SEAL_FUTURE_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
            fcntl.fcntl(self._block.fd, fcntl.F_ADD_SEALS, seals)
        else:
            self._key = torch.randint(-(2**62), 2**62, (_CHUNK,), device=access.torch_device)
            self._prints = self._fingerprints()

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

    def intact(self) -> bool:
        """Whether the inputs are what they were: pages of a device may be writable to whoever has them."""
        return self._prints is None or self._prints == self._fingerprints()

    def _fingerprints(self) -> list[int]:
        """One for each input: a sum of its words, each times a secret number."""
        found = []
        for views in (views for slots in self._inputs for views in slots):
            for value in views.values():
                data = value.reshape(-1).view(torch.uint8)
                pieces = torch.split(data, _CHUNK)
                found += [int((piece.long() * self._key[: len(piece)]).sum()) for piece in pieces]
        return found

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
    return int(min(MOST_SLOTS, max(4, ROTATION_BYTES[workload.device] // max(varying, 1))))
