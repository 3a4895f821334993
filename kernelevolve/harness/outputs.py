"""The outputs of one runner: nobody else's answers lie there."""

from functools import cache

import torch

from kernelevolve.harness import cuda_driver
from kernelevolve.harness.access import HOST, Access
from kernelevolve.harness.blocks import make_block
from kernelevolve.harness.layout import OUTPUT, Layout

FLUSH_BYTES = 256 << 20
"""Written before each batch on a device: twice the largest level-2 cache so far (126 MB, Blackwell)."""

GLIMPSE = 4096
"""Bytes of each output that are looked at the moment a batch is said to be done."""


class Outputs:
    """Memory for every output of every slot, and what the judge does with it before and after a batch."""

    def __init__(self, layout: Layout, access: Access = HOST) -> None:
        self._layout = layout
        self._access = access
        self.block = make_block(access, "outputs", layout.output_bytes)
        self._seen: tuple[int, int, list[tuple[torch.Tensor, torch.Tensor]]] | None = None

    def poison(self, workload: int, slot: int) -> None:
        """Fill with what no answer may leave in place."""
        for argument in self._layout.workloads[workload].tensors(OUTPUT):
            self.block.poison(argument, slot)

    def read(self, workload: int, slot: int) -> dict[str, torch.Tensor]:
        """What lies there now, by output name, without a copy."""
        arguments = self._layout.workloads[workload].tensors(OUTPUT)
        return {argument.name: self.block.view(argument, slot) for argument in arguments}

    def ready(self) -> None:
        """Just before a batch: on a device, poison has landed and the level-2 cache holds nothing of any slot."""
        self._seen = None
        if self._access.memory == "mapped":
            cuda_driver.forget_persisting_lines()
            _flush().zero_()
            torch.cuda.synchronize()

    def settle(self, workload: int, slot: int) -> None:
        """Just after a batch, while the clock still runs: on a device, glimpse at the outputs of its last call.

        The judge's own work waits in the same queue of the device: if the candidate's was still under way, it is
        either waited for, and timed, or seen unfinished.
        """
        if self._access.memory != "mapped":
            return
        glimpses = []
        for output in self.read(workload, slot).values():
            if output.numel():
                data = output.view(-1).view(torch.uint8)
                where = torch.randint(data.numel(), (GLIMPSE,), device=data.device)
                glimpses.append((where, data[where]))
        torch.cuda.synchronize()
        self._seen = (workload, slot, glimpses)

    def changed_since(self, workload: int, slot: int) -> bool:
        """Whether a slot's outputs are no longer what they were when the batch was said to be done."""
        if self._seen is None or self._seen[:2] != (workload, slot):
            return False
        now = [output.view(-1).view(torch.uint8) for output in self.read(workload, slot).values() if output.numel()]
        return any(not torch.equal(data[where], then) for data, (where, then) in zip(now, self._seen[2], strict=True))

    def close(self) -> None:
        """Give the memory back."""
        self._seen = None
        self.block.close()


@cache
def _flush() -> torch.Tensor:
    return torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
