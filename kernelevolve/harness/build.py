"""Source to artifact, inside walls and limits, kept in a cache that is addressed by content."""

import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernelevolve.catalog import LANGUAGES
from kernelevolve.errors import ToolchainError
from kernelevolve.harness.sandbox import Finished, Sandbox, run_trusted
from kernelevolve.languages import PRELUDE, BuildPlan, Language
from kernelevolve.schema import Candidate, Diagnostic, Hardware, LimitExceeded, Limits, digest_of

log = logging.getLogger(__name__)


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
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{key[:8]}-") as scratch:
        work = Path(scratch) / "work"
        _write(language.sources(candidate), work)
        done = _compile(plan, prelude, work, limits, Sandbox.open(cache_dir))
        findings = _findings(done, language, work, limits)
        if findings:
            return BuildFailed(findings, time.perf_counter() - started)
        _move(work, home)
    return Built(artifact, language, time.perf_counter() - started, cached=False)


def _compile(plan: BuildPlan, prelude: Path | None, work: Path, limits: Limits, sandbox: Sandbox) -> Finished:
    argv = [argument.replace(PRELUDE, str(prelude)) for argument in plan.argv]
    readable = (*plan.readable, *((prelude,) if prelude else ()))
    return sandbox.run(argv, limits=limits, seconds=limits.build_s, readable=readable, writable=(work,), cwd=work)


def _findings(done: Finished, language: Language, work: Path, limits: Limits) -> tuple[Diagnostic, ...]:
    if done.timed_out:
        return (
            LimitExceeded(
                message=f"the build took longer than {limits.build_s:g} s",
                advice="fewer template instantiations, smaller unrolled loops",
                resource="time",
                limit=limits.build_s,
            ),
        )
    if "out of memory" in done.output or "cannot allocate memory" in done.output.lower():
        return (
            LimitExceeded(
                message=f"the compiler ran out of memory: its limit is {limits.memory_bytes >> 20} MiB",
                advice="smaller arrays and unrolled loops",
                resource="memory",
                limit=limits.memory_bytes,
            ),
        )
    return language.diagnose(done.output.replace(f"{work}/", "")) if done.returncode != 0 else ()


def _prelude(plan: BuildPlan, cache_dir: Path) -> Path | None:
    """Folder of the prelude, built on first use. It is our own source, so no walls are needed."""
    if plan.prelude is None:
        return None
    home = cache_dir / "preludes" / digest_of(plan.fingerprint, plan.prelude.argv)
    if (home / plan.prelude.artifact).is_file():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        work = Path(scratch) / "work"
        _write(plan.prelude.files, work)
        run_trusted(plan.prelude.argv, cwd=work)
        _move(work, home)
    return home


def _write(files: Mapping[str, str], folder: Path) -> None:
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _move(work: Path, home: Path) -> None:
    """Publish a finished folder in one step; whoever came first wins."""
    work.chmod(0o755)
    try:
        work.rename(home)
    except OSError as error:
        if not home.is_dir():
            raise ToolchainError(
                f"can't write the build cache: {error}", remedy=f"free space for {home.parent}"
            ) from error
        log.debug("another process has built %s", home.name)
        shutil.rmtree(work, ignore_errors=True)
