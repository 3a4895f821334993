"""Certified kernels in a folder of this machine.

::

    <registry>/<target>/<hardware key>/<entry digest>/
        entry.json       the record: kernel, domain, evidence, provenance, environment
        sources/...      the kernel's files, to read
        manifest.json    SHA-256 of every other file
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from kernelevolve.errors import RegistryError, UsageError
from kernelevolve.registry.base import Finding, Stored
from kernelevolve.schema import Entry, Record

log = logging.getLogger(__name__)

ENTRY = "entry.json"
MANIFEST = "manifest.json"
SOURCES = "sources"


class Manifest(Record):
    """What an entry's folder must hold."""

    files: dict[str, str]
    """relative path to SHA-256 (hexadecimal)"""


class LocalRegistry:
    """A registry that is a folder, which need not exist before the first entry is published."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def publish(self, entry: Entry) -> Path:
        """Keep an entry, all of it or nothing: written aside, flushed to the disk, then renamed into place.

        A sound entry of this digest is left alone, a damaged one is replaced. Raises `RegistryError`.
        """
        home = self.path / _name(entry.target) / _name(entry.hardware.key) / entry.digest
        if _sound(home):
            return home
        contents = _contents(entry)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.path, prefix=".publish-") as scratch:
                work = Path(scratch) / "entry"
                _write(contents, work)
                home.parent.mkdir(parents=True, exist_ok=True)
                _move(work, home, aside=Path(scratch) / "damaged")
        except OSError as error:
            raise RegistryError(
                f"can't publish to {self.path}: {error.strerror or error}",
                remedy="free space there, or name another registry",
            ) from error
        return home

    def entries(self, target: str | None = None, hardware_key: str | None = None) -> tuple[Stored, ...]:
        """Sound entries, sorted by path; a damaged one is left out with a warning. Raises `RegistryError`."""
        found = []
        for home in self._homes(target):
            try:
                entry = self.read(home)
            except RegistryError as error:
                log.warning("a damaged entry is left out: %s", error)
                continue
            if hardware_key in (None, entry.hardware.key, *entry.hardware.aliases):
                found.append(Stored(home, entry))
        return tuple(found)

    def verify(self, target: str | None = None) -> tuple[Finding, ...]:
        """Check every entry against its digests, sorted by path."""
        findings = []
        for home in self._homes(target):
            try:
                self.read(home)
                findings.append(Finding(home, ok=True))
            except RegistryError as error:
                findings.append(Finding(home, ok=False, problem=error.message))
        return tuple(findings)

    def find(self, digest_prefix: str) -> Stored:
        """The one entry whose digest begins so. Raises `UsageError`, and `RegistryError` if it is damaged."""
        homes = [home for home in self._homes(None) if home.name.startswith(digest_prefix)]
        if len(homes) != 1:
            few = "no entry's digest begins" if not homes else f"the digests of {len(homes)} entries begin"
            raise UsageError(
                f"{few} with {digest_prefix!r} in {self.path}",
                remedy="list the entries and copy one's digest",
            )
        return Stored(homes[0], self.read(homes[0]))

    def read(self, path: Path) -> Entry:
        """The entry in a folder. Raises `RegistryError` where it is damaged."""
        remedy = "delete the folder and publish the entry again"
        try:
            expected = Manifest.model_validate_json((path / MANIFEST).read_bytes()).files
            if problem := _difference(expected, _digests(path)):
                raise RegistryError(f"{path}: {problem}", remedy=remedy)
            entry = Entry.model_validate_json((path / ENTRY).read_bytes())
        except OSError as error:
            raise RegistryError(f"{path}: {error.strerror} ({error.filename})", remedy=remedy) from error
        except ValueError as error:  # not JSON, or not the record
            raise RegistryError(f"{path}: {_first_line(error)}", remedy=remedy) from error
        if entry.digest != path.name:
            raise RegistryError(f"{path}: the entry's digest is {entry.digest}", remedy=remedy)
        return entry

    def _homes(self, target: str | None) -> list[Path]:
        try:
            targets = [self.path / target] if target else _folders(self.path)
            return [home for folder in targets for machine in _folders(folder) for home in _folders(machine)]
        except OSError as error:
            raise RegistryError(
                f"can't list the registry {self.path}: {error.strerror}", remedy="check its permissions"
            ) from error


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _name(part: str) -> str:
    """A target's name or a hardware key, as the name of a folder."""
    if not part or part.startswith(".") or PurePosixPath(part).name != part:
        raise RegistryError(f"{part!r} can't name a folder", remedy="use letters, digits and dashes")
    return part


def _contents(entry: Entry) -> dict[str, bytes]:
    """Every file of an entry's folder."""
    files = {ENTRY: entry.model_dump_json(indent=2).encode()}
    for name, text in entry.candidate.files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise RegistryError(f"the kernel's file {name!r} lies outside its folder", remedy="use relative paths")
        files[f"{SOURCES}/{path}"] = text.encode()
    manifest = Manifest(files={name: _sha256(data) for name, data in files.items()})
    return {**files, MANIFEST: manifest.model_dump_json(indent=2).encode()}


def _write(contents: Mapping[str, bytes], home: Path) -> None:
    for name, data in contents.items():
        file = home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    for folder in (home, *(path for path in home.rglob("*") if path.is_dir())):
        _flush(folder)


def _move(work: Path, home: Path, aside: Path) -> None:
    """Put a finished folder in its place; whoever came first with a sound one wins."""
    try:
        if home.exists() and not _sound(home):
            home.rename(aside)
        work.rename(home)
    except OSError:
        if not _sound(home):
            raise
        log.debug("another process has published %s", home.name)
    _flush(home.parent)


def _flush(folder: Path) -> None:
    """Bring a folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sound(home: Path) -> bool:
    if not home.is_dir():
        return False
    try:
        LocalRegistry(home.parent).read(home)
    except RegistryError:
        return False
    return True


def _digests(home: Path) -> dict[str, str]:
    files = (path for path in home.rglob("*") if path.is_file() and path != home / MANIFEST)
    return {path.relative_to(home).as_posix(): _sha256(path.read_bytes()) for path in files}


def _difference(expected: Mapping[str, str], actual: Mapping[str, str]) -> str:
    """The first file that is not as the manifest says; empty where all are."""
    for name in sorted({*expected, *actual}):
        if name not in actual:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} is not in the manifest"
        if expected[name] != actual[name]:
            return f"{name} has changed since it was published"
    return ""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _first_line(error: ValueError) -> str:
    return str(error).splitlines()[0]
