"""What the checks that need no device have found out; kept as JSON, and read without importing torch."""

from dataclasses import dataclass

from kernelevolve.schema import CompiledKernel, Diagnostic, Record


class CompileCheck(Record):
    """What became of every launch."""

    kernels: tuple[CompiledKernel, ...] = ()
    rejected: tuple[Diagnostic, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    hints: tuple[str, ...] = ()
    seconds: dict[str, float] = {}


class InterpreterCheck(Record):
    """Which workloads were compared, and what was wrong."""

    checked: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    seconds: dict[str, float] = {}


@dataclass(frozen=True)
class Checked:
    """What the checks found, and the seconds that each took; none where it was known before."""

    compiled: CompileCheck
    interpreted: InterpreterCheck
    compile_s: float = 0.0
    interpret_s: float = 0.0
