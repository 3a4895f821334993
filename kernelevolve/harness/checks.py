"""What the checks that need no device have found out; kept as JSON, and read without importing torch."""

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
