"""What can be said of a Triton candidate without its device: does it compile, does it fit, does it compute right."""

import logging
import os
import tempfile
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from kernelevolve.errors import UsageError
from kernelevolve.hardware.devices import Gpu
from kernelevolve.harness.checks import CompileCheck, InterpreterCheck
from kernelevolve.harness.compile_check import compile_check
from kernelevolve.harness.sandbox import Sandbox
from kernelevolve.languages.triton import Triton, triton_version
from kernelevolve.schema import Candidate, Diagnostic, Record, Target, Triage, digest_of

log = logging.getLogger(__name__)

_R = TypeVar("_R", bound=Record)


def triage(candidate: Candidate, target: Target, gpu: Gpu, cache_dir: Path) -> Triage:
    """Compile a candidate for a device and interpret it; what was found out before comes from `cache_dir`.

    Raises `UsageError` for another language than Triton, and `ToolchainError` where Triton is missing.
    """
    if candidate.language != Triton.name:
        raise UsageError(
            f"{candidate.language} candidates can't be triaged", remedy="give a Triton candidate (--language triton)"
        )
    started = time.perf_counter()
    versions = {"triton": triton_version(), "torch": version("torch"), "numpy": version("numpy")}
    sandbox = Sandbox.open(cache_dir)
    language = Triton()
    parse = language.admit(candidate.files, candidate.entry)
    compiled, seconds, diagnostics = CompileCheck(), {"compile": 0.0, "interpret": 0.0}, list[Diagnostic](parse)
    checked: tuple[str, ...] = ()
    unchecked = tuple(w.name for w in target.select("gpu", "check"))
    if not parse:
        identity = (candidate.code, target.digest, versions, _own_code())
        folder = cache_dir / "triage"
        compiled, seconds["compile"] = _kept(
            folder / f"{digest_of('compile', *identity, gpu.digest)}.json", CompileCheck,
            lambda: compile_check(candidate, target, gpu, sandbox, cache_dir),
        )  # fmt: skip
        diagnostics += compiled.diagnostics
        if not any(d.kind == "compile" for d in diagnostics):
            found, seconds["interpret"] = _kept(
                folder / f"{digest_of('interpret', *identity, gpu.key)}.json", InterpreterCheck,
                lambda: _interpret(candidate, target, gpu, sandbox, cache_dir),
            )  # fmt: skip
            checked, unchecked = found.checked, found.unchecked
            said = {d.message for d in diagnostics}
            diagnostics += [d for d in found.diagnostics if d.message not in said]
    return Triage(
        candidate=candidate.digest, target=target.digest, hardware_key=gpu.key, architecture=gpu.architecture,
        versions=versions, sandbox=sandbox.walls, kernels=compiled.kernels, rejected=compiled.rejected,
        checked=checked, unchecked=unchecked, hints=() if parse else language.hints(candidate.files),
        diagnostics=tuple(diagnostics), seconds={**seconds, "total": time.perf_counter() - started},
    )  # fmt: skip


def _interpret(
    candidate: Candidate, target: Target, gpu: Gpu, sandbox: Sandbox, cache_dir: Path
) -> InterpreterCheck:  # fmt: skip
    from kernelevolve.harness.interpreter_check import interpreter_check  # imports torch: a repeat needs none

    return interpreter_check(candidate, target, gpu, sandbox, cache_dir)


def _kept(file: Path, kind: type[_R], find_out: Callable[[], _R]) -> tuple[_R, float]:
    """What the file says, else what is found out now; and the seconds that took."""
    if file.is_file():
        try:
            return kind.model_validate_json(file.read_bytes()), 0.0
        except ValidationError as error:
            log.warning("%s is damaged and is made again: %s", file, error)
    started = time.perf_counter()
    record = find_out()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed: a process that reads at the same moment sees one whole file.
    descriptor, name = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(record.model_dump_json())
    Path(name).replace(file)
    return record, time.perf_counter() - started


@cache
def _own_code() -> str:
    """Digest of what decides a verdict beside the candidate: another version of it must not find the old ones."""
    folder = Path(__file__).parent
    texts = [file.read_text() for file in sorted(folder.glob("*.py"))]
    return digest_of(texts, Path(__file__).parents[1].joinpath("languages", "triton.py").read_text())
