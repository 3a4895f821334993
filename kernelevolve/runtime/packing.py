"""Constant inputs (weights) that a kernel repacks once, kept for as long as their memory lives."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from kernelevolve.languages.base import Kernel


class Packs:
    """What `prepare` made of each set of constants.

    A pack serves the same memory (storage, address, shape) at the same version, so a change in place that
    torch counts makes a new one. Changes that torch doesn't count (through `.data`, or numpy) go unnoticed,
    as they do in autograd. A tensor made under `torch.inference_mode` has no version: asking raises RuntimeError.
    """

    def __init__(self, prepare: Kernel) -> None:
        self._prepare = prepare
        self._packs: dict[tuple[int, ...], Any] = {}
        self.find = self._packs.get
        """the pack under a `key`, or None"""
        self._storages: dict[tuple[int, ...], tuple[StorageWeakRef, ...]] = {}
        """they keep the storages' identities from being reused, not their memory from being freed"""
        self._forms: dict[Hashable, int] = {}

    def form(self, constants: Sequence[torch.Tensor]) -> int:
        """A number for these shapes and element types."""
        described = tuple((c.shape, c.dtype) for c in constants)
        return self._forms.setdefault(described, len(self._forms))

    def get(self, form: int, constants: Sequence[torch.Tensor]) -> Any:
        """The packed form of these constants, made on first use."""
        place = key(form, constants)
        packed = self.find(place)
        return self._add(place, constants) if packed is None else packed

    def _add(self, place: tuple[int, ...], constants: Sequence[torch.Tensor]) -> Any:
        for other, storages in list(self._storages.items()):
            gone = any(s.expired() for s in storages)  # type: ignore[no-untyped-call]
            if gone or _memory(other) == _memory(place):
                self._packs.pop(other, None)
                self._storages.pop(other, None)
        packed = self._prepare(*constants)
        self._storages[place] = tuple(StorageWeakRef(c.untyped_storage()) for c in constants)  # type: ignore[no-untyped-call]
        self._packs[place] = packed
        return packed


def key(form: int, constants: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """Form, then storage, address and version of each constant. The path of a hit writes this out."""
    parts = [form]
    for c in constants:
        parts += (c.untyped_storage()._cdata, c.data_ptr(), c._version)
    return tuple(parts)


def _memory(place: tuple[int, ...]) -> tuple[int, ...]:
    """A key without the versions: the same memory, as it was at another time."""
    return tuple(part for position, part in enumerate(place) if position == 0 or position % 3)
