"""The seam between a kernel language and everything else. A language decides; the harness acts.

A language never runs a process: it says how to build (`build_plan`) and reads what the compiler said
(`diagnose`), so that compiling happens inside the harness' walls.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from kernelevolve.schema import Candidate, Device, Diagnostic, Hardware, Value

Kernel = Callable[..., Any]
"""`run(*inputs, *outputs)`: writes its outputs in place, returns nothing."""


PRELUDE = "{prelude}"
"""Stands in `BuildPlan.argv` for the folder in which the prelude was built."""


@dataclass(frozen=True)
class Prelude:
    """Something of ours that is built once and shared by all builds (a precompiled header)."""

    files: Mapping[str, str]
    argv: tuple[str, ...]
    artifact: str
    """name of the file that the command leaves beside them"""


@dataclass(frozen=True)
class BuildPlan:
    """How to turn a folder of sources into an artifact."""

    argv: tuple[str, ...]
    artifact: str
    """name of the file that the command leaves in the build folder"""
    fingerprint: str
    """everything beside the sources that decides the result: compiler version, flags, machine"""
    readable: tuple[Path, ...] = ()
    """folders outside the system's own that the command has to read"""
    prelude: Prelude | None = None


@dataclass(frozen=True)
class Loaded:
    """An artifact in a serving process."""

    run: Kernel
    prepare: Kernel | None
    """`prepare(*constants)` returns one packed tensor, which `run` then takes after the inputs"""


class Language(Protocol):
    """What a kernel language has to know. Implementations are stateless."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """of source files, the main one first"""
    devices: ClassVar[tuple[Device, ...]]
    """kinds of device that its kernels run on"""
    runner: ClassVar[Literal["native", "python"]]
    """which runner of the harness calls its artifacts"""

    @property
    def libraries(self) -> tuple[Path, ...]:
        """Folders outside the system's own that an artifact needs when it runs."""

    def admit(self, files: Mapping[str, str], entry: str = "run") -> tuple[Diagnostic, ...]:
        """What keeps these files from being a candidate; empty means nothing does."""

    def tunables(self, files: Mapping[str, str]) -> dict[str, tuple[Value, ...]]:
        """Declared tunables with their values, the default first. Raises `UsageError` for an ill-formed one."""

    def sources(self, candidate: Candidate) -> dict[str, str]:
        """The files to build, with the tunables substituted; line numbers are kept."""

    def build_plan(self, candidate: Candidate, hardware: Hardware) -> BuildPlan:
        """How to build in a folder that holds `sources`. Raises `ToolchainError` where a tool is missing."""

    def diagnose(self, output: str) -> tuple[Diagnostic, ...]:
        """Findings in what a failed build printed; at least one."""

    def load(self, artifact: Path, entry: str = "run") -> Loaded:
        """Bring an artifact into this process, for serving. Raises `ToolchainError`."""
