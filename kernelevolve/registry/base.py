"""The seam between certified kernels and the place where they are kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kernelevolve.schema import Entry


@dataclass(frozen=True)
class Stored:
    """A sound entry, and the folder that holds it."""

    path: Path
    entry: Entry


@dataclass(frozen=True)
class Finding:
    """What `verify` says of one entry's folder."""

    path: Path
    ok: bool
    problem: str = ""
    """what is wrong with it, in one sentence; empty where nothing is"""


class Registry(Protocol):
    """Keeps entries. What it hands out has been checked against its digests."""

    def publish(self, entry: Entry) -> Path:
        """Keep an entry, all of it or nothing; again changes nothing. Raises `RegistryError`."""

    def entries(self, target: str | None = None, hardware_key: str | None = None) -> tuple[Stored, ...]:
        """Sound entries, sorted by path: all, or those of a target, of a machine's key or alias."""

    def verify(self, target: str | None = None) -> tuple[Finding, ...]:
        """Check every entry, or those of a target, sorted by path."""

    def find(self, digest_prefix: str) -> Stored:
        """The one entry whose digest begins so. Raises `UsageError`, and `RegistryError` if it is damaged."""

    def read(self, path: Path) -> Entry:
        """The entry in a folder. Raises `RegistryError` where it is damaged."""
