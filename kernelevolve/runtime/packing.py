"""Constant inputs (weights) that a kernel repacks once, kept for as long as their memory lives."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from kernelevolve.languages.base import Kernel


@dataclass(frozen=True, slots=True)
class _Pack:
    versions: tuple[int, ...]
    packed: Any
    """whatever `prepare` returned, handed to `run` as it is"""
    storages: tuple[StorageWeakRef, ...]
    """they keep the storages' identities from being reused, not their memory from being freed"""

    @property
    def stale(self) -> bool:
        """Whether some constant is gone."""
        return any(storage.expired() for storage in self.storages)  # type: ignore[no-untyped-call]


class Packs:
    """What `prepare` made of each set of constants.

    A pack serves the same memory (storage, address, shape) at the same version, so a change in place that
    torch counts makes a new one. Changes that torch doesn't count (through `.data`, or numpy) go unnoticed,
    as they do in autograd. A tensor made under `torch.inference_mode` has no version: `get` raises
    RuntimeError.
    """

    def __init__(self, prepare: Kernel) -> None:
        self._prepare = prepare
        self._packs: dict[Hashable, _Pack] = {}

    def get(self, *constants: torch.Tensor) -> Any:
        """The packed form of these constants, made on first use."""
        key = tuple([(c.untyped_storage()._cdata, c.data_ptr(), c.shape, c.dtype) for c in constants])
        versions = tuple([c._version for c in constants])
        pack = self._packs.get(key)
        if pack is not None and pack.versions == versions:
            return pack.packed
        return self._add(key, versions, constants)

    def _add(self, key: Hashable, versions: tuple[int, ...], constants: tuple[torch.Tensor, ...]) -> Any:
        for stale in [k for k, p in list(self._packs.items()) if p.stale]:
            self._packs.pop(stale, None)
        packed = self._prepare(*constants)
        storages = tuple(StorageWeakRef(c.untyped_storage()) for c in constants)  # type: ignore[no-untyped-call]
        self._packs[key] = _Pack(versions, packed, storages)
        return packed
