"""Source to artifact, inside walls and limits, kept in a cache that is addressed by content."""

import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kernelevolve.catalog import LANGUAGES
from kernelevolve.errors import ToolchainError
from kernelevolve.harness.sandbox import Finished, Sandbox, run_trusted
from kernelevolve.languages import PRELUDE, BuildPlan, Language
from kernelevolve.schema import Candidate, Diagnostic, Hardware, LimitExceeded, Limits, digest_of

log = logging.getLogger(__name__)

LITTLE_ROOM = 16 << 20
"""Bytes left on a disk at which a compiler's complaint about space is not the candidate's doing."""

_OUT_OF_MEMORY = re.compile(r"out of memory allocating \d|memory exhausted|cannot allocate memory", re.IGNORECASE)


@dataclass(frozen=True)
class Built:
    """An artifact that can be run or loaded."""

    artifact: Path
    language: Language
    seconds: float
    cached: bool


@dataclass(frozen=True)
class BuildFailed:
    """The compiler refused, or hit a limit."""

    diagnostics: tuple[Diagnostic, ...]
    seconds: float


def build(candidate: Candidate, hardware: Hardware, limits: Limits, cache_dir: Path) -> Built | BuildFailed:
    """Build a candidate, or find it in the cache. Raises `ToolchainError` where a tool is missing."""
    started = time.perf_counter()
    language: Language = LANGUAGES.load(candidate.language)()
    plan = language.build_plan(candidate, hardware)
    key = digest_of(candidate.code, plan.fingerprint, plan.argv)
    home = cache_dir / "builds" / key[:2] / key
    artifact = home / plan.artifact
    if artifact.is_file():
        return Built(artifact, language, time.perf_counter() - started, cached=True)
    prelude = _prelude(plan, cache_dir)
    with _folder_for(home) as work:
        write_sources(language.sources(candidate), work)
        done = _compile(plan, prelude, work, limits, Sandbox.open(cache_dir))
        findings = findings_of(done, language, work, limits)
        if findings:
            return BuildFailed(findings, time.perf_counter() - started)
        _move(work, home)
    return Built(artifact, language, time.perf_counter() - started, cached=False)


@contextmanager
def _folder_for(home: Path) -> Iterator[Path]:
    """A place beside `home` for a new folder, which is gone afterwards unless it was moved there."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{home.name[:8]}-") as scratch:
            yield Path(scratch) / "work"
    except OSError as error:
        raise _no_room(home.parent, str(error)) from error


def _no_room(folder: Path, reason: str) -> ToolchainError:
    return ToolchainError(
        f"can't build in {folder}: {reason}", remedy="free space on its disk, or set `cache` to another folder"
    )


def _compile(plan: BuildPlan, prelude: Path | None, work: Path, limits: Limits, sandbox: Sandbox) -> Finished:
    argv = [argument.replace(PRELUDE, str(prelude)) for argument in plan.argv]
    readable = (*plan.readable, *((prelude,) if prelude else ()))
    return sandbox.run(argv, limits=limits, seconds=limits.build_s, readable=readable, writable=(work,), cwd=work)


def findings_of(done: Finished, language: Language, work: Path, limits: Limits) -> tuple[Diagnostic, ...]:
    """What the end of a build says against the candidate, if anything. Raises `ToolchainError` for a full disk."""
    if done.timed_out:
        return (
            LimitExceeded(
                message=f"the build took longer than {limits.build_s:g} s",
                advice="fewer template instantiations, smaller unrolled loops",
                resource="time",
                limit=limits.build_s,
            ),
        )
    if done.returncode == 0:
        return ()
    if "no space left" in done.output.lower() and shutil.disk_usage(work).free < LITTLE_ROOM:
        raise _no_room(work, "no space is left on the device")
    if _OUT_OF_MEMORY.search(done.output):
        return (
            LimitExceeded(
                message=f"the compiler ran out of memory: its limit is {limits.memory_bytes >> 20} MiB",
                advice="smaller arrays and unrolled loops",
                resource="memory",
                limit=limits.memory_bytes,
            ),
        )
    if "file size limit exceeded" in done.output.lower():
        return (
            LimitExceeded(
                message=f"the compiler's output is larger than {limits.file_bytes >> 20} MiB",
                advice="no large initialised arrays: fill tables at run time, or in `prepare`",
                resource="file_size",
                limit=limits.file_bytes,
            ),
        )
    return language.diagnose(done.output.replace(f"{work}/", ""))


def _prelude(plan: BuildPlan, cache_dir: Path) -> Path | None:
    """Folder of the prelude, built on first use. It is our own source, so no walls are needed."""
    if plan.prelude is None:
        return None
    home = cache_dir / "preludes" / digest_of(plan.fingerprint, plan.prelude.argv)
    if (home / plan.prelude.artifact).is_file():
        return home
    with _folder_for(home) as work:
        write_sources(plan.prelude.files, work)
        run_trusted(plan.prelude.argv, cwd=work)
        _move(work, home)
    return home


def write_sources(files: Mapping[str, str], folder: Path) -> None:
    """Files to build, readable for whichever user the compiler becomes."""
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    _open_to_all(folder)


def _open_to_all(folder: Path) -> None:
    """Ours to write, and readable for whichever user a compiler or candidate becomes, under any umask."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, os.geteuid(), -1)
        path.chmod(0o755 if path.is_dir() else 0o644)


def _move(work: Path, home: Path) -> None:
    """Publish a finished folder in one step; whoever came first wins."""
    _open_to_all(work)
    try:
        work.rename(home)
    except OSError:
        if not home.is_dir():
            raise
        log.debug("another process has built %s", home.name)
        shutil.rmtree(work, ignore_errors=True)
