"""From an entry to something callable in this process, once for each entry."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kernelevolve.errors import KernelevolveError, ToolchainError
from kernelevolve.languages.base import Kernel, Loaded
from kernelevolve.runtime.packing import Packs
from kernelevolve.schema import Candidate, Entry, Hardware, Limits

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A kernel ready to be called."""

    run: Kernel
    packs: Packs | None
    """where the kernel takes its constants repacked"""


@dataclass(frozen=True)
class Unusable:
    """Why an entry can't be served in this process."""

    reason: Literal["toolchain", "build_failed", "load_failed"]
    message: str


class Kernels:
    """Builds and loads. The caller sees to it that an entry is asked for by one thread at a time."""

    def __init__(self, hardware: Hardware, cache_dir: Path, limits: Limits | None = None) -> None:
        self._hardware = hardware
        self._cache_dir = cache_dir
        self._limits = limits or Limits()
        self._ready: dict[str, Served | Unusable] = {}

    def get(self, entry: Entry) -> Served | Unusable:
        """The kernel of an entry. A failure is remembered too."""
        if entry.digest not in self._ready:
            self._ready[entry.digest] = self._make(entry.candidate)
        return self._ready[entry.digest]

    def _make(self, candidate: Candidate) -> Served | Unusable:
        try:
            loaded = self._load(candidate)
        except ToolchainError as error:
            return Unusable("toolchain", str(error))
        except (KernelevolveError, OSError) as error:
            return Unusable("load_failed", str(error))
        if isinstance(loaded, Unusable):
            return loaded
        return Served(loaded.run, Packs(loaded.prepare) if loaded.prepare else None)

    def _load(self, candidate: Candidate) -> Loaded | Unusable:
        from kernelevolve.harness.build import BuildFailed, build

        built = build(candidate, self._hardware, self._limits, self._cache_dir)
        if not isinstance(built, BuildFailed) and built.cached:
            try:
                return built.language.load(built.artifact, candidate.entry)
            except ToolchainError as error:
                log.warning("a cached build is made anew: %s", error)
                shutil.rmtree(built.artifact.parent)
                built = build(candidate, self._hardware, self._limits, self._cache_dir)
        if isinstance(built, BuildFailed):
            return Unusable("build_failed", "; ".join(d.message for d in built.diagnostics[:3]))
        try:
            return built.language.load(built.artifact, candidate.entry)
        except ToolchainError as error:
            return Unusable("load_failed", str(error))
