"""Both checks of a Triton candidate that need no device, side by side where there is a core for each."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

from kernelevolve.hardware.devices import Gpu
from kernelevolve.harness.checks import Checked, CompileCheck, InterpreterCheck
from kernelevolve.harness.compile_check import compile_check
from kernelevolve.harness.kept import kept, recall
from kernelevolve.harness.sandbox import Sandbox
from kernelevolve.languages.triton import triton_version
from kernelevolve.schema import Candidate, Target, digest_of


@dataclass(frozen=True)
class TritonCheck:
    """One candidate on its way to a device."""

    candidate: Candidate
    target: Target
    gpu: Gpu
    sandbox: Sandbox
    cache_dir: Path
    _refused: threading.Event = field(default_factory=threading.Event)

    def run(self) -> Checked:
        """What doesn't compile is not interpreted. Raises `ToolchainError` where Triton is missing."""
        before = recall(self._compile_file, CompileCheck)
        if before is not None or len(os.sched_getaffinity(0)) == 1:
            compiled, seconds = (before, 0.0) if before is not None else self._compile()
            return self._result(compiled, seconds, None if _refuses(compiled) else self._interpret())
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(self._compile)
            interpreted = self._interpret()
            compiled, seconds = under_way.result()
        return self._result(compiled, seconds, interpreted)

    def _result(
        self, compiled: CompileCheck, seconds: float, interpreted: tuple[InterpreterCheck, float] | None
    ) -> Checked:
        if interpreted is None or _refuses(compiled):
            unchecked = tuple(w.name for w in self.target.select("gpu", "check"))
            return Checked(compiled, InterpreterCheck(unchecked=unchecked), seconds)
        return Checked(compiled, interpreted[0], seconds, interpreted[1])

    def _compile(self) -> tuple[CompileCheck, float]:
        found = kept(
            self._compile_file, CompileCheck,
            lambda: compile_check(self.candidate, self.target, self.gpu, self.sandbox, self.cache_dir),
        )  # fmt: skip
        if _refuses(found[0]):
            self._refused.set()
        return found

    def _interpret(self) -> tuple[InterpreterCheck, float] | None:
        """None where it was broken off, since the candidate doesn't compile."""
        try:
            return kept(self._file("interpret", self.gpu.key), InterpreterCheck, self._interpreted)
        except _BrokenOff:
            return None

    def _interpreted(self) -> InterpreterCheck:
        from kernelevolve.harness.interpreter_check import interpreter_check  # imports torch: a repeat needs none

        found = interpreter_check(
            self.candidate, self.target, self.gpu, self.sandbox, self.cache_dir,
            wanted=lambda: not self._refused.is_set(),
        )  # fmt: skip
        if self._refused.is_set():
            raise _BrokenOff
        return found

    @property
    def _compile_file(self) -> Path:
        return self._file("compile", self.gpu.digest)

    def _file(self, check: str, device: str) -> Path:
        name = digest_of(check, self.candidate.code, self.target.digest, versions(), own_code(), device)
        return self.cache_dir / "triage" / f"{name}.json"


class _BrokenOff(Exception):  # noqa: N818 - no error: the rest of a check isn't wanted any more
    """The candidate doesn't compile."""


def _refuses(compiled: CompileCheck) -> bool:
    return any(d.kind == "compile" for d in compiled.diagnostics)


def versions() -> dict[str, str]:
    """Of what compiles and interprets; found without importing it. Raises `ToolchainError`."""
    return {"triton": triton_version(), "torch": version("torch"), "numpy": version("numpy")}


@cache
def own_code() -> str:
    """Digest of what decides a verdict beside the candidate: another version of it must not find the old ones."""
    folder = Path(__file__).parent
    texts = [file.read_text() for file in sorted(folder.glob("*.py"))]
    return digest_of(texts, Path(__file__).parents[1].joinpath("languages", "triton.py").read_text())
