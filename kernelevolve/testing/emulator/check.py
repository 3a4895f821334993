"""Compares what a CUDA candidate computes in the emulator with the truth, on a target's workloads."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from kernelevolve.harness.arena import Arena
from kernelevolve.harness.correctness import compare
from kernelevolve.harness.oracle import Oracle
from kernelevolve.harness.programs import candidate_program
from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.harness.sandbox import Sandbox, run_trusted
from kernelevolve.languages.cuda import Cuda
from kernelevolve.schema import Candidate, Diagnostic, Limits, Target, Workload
from kernelevolve.testing.emulator import build_command

LIMITS = Limits(call_s=240.0, memory_bytes=8 << 30)


def emulated(
    candidate: Candidate, target: Target, workloads: Sequence[Workload], cache_dir: Path, *, order: int = 0
) -> tuple[Diagnostic, ...]:
    """Everything that is wrong; empty means nothing is. Raises `ToolchainError` where the emulator can't build it."""
    with tempfile.TemporaryDirectory(prefix="kernelevolve-emulator-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        return compared(built(candidate, folder, order), target, workloads, cache_dir)


def built(candidate: Candidate, folder: Path, order: int = 0) -> Path:
    """The candidate as a shared object for the CPU; `order` is that of `build_command`. Raises `ToolchainError`."""
    run_trusted(build_command(Cuda().sources(candidate), folder, order))
    return folder / "kernel.so"


def compared(
    artifact: Path, target: Target, workloads: Sequence[Workload], cache_dir: Path, entry: str = "run"
) -> tuple[Diagnostic, ...]:
    """Everything that is wrong with what was built, called in a process of its own, inside the walls."""
    with tempfile.TemporaryDirectory(prefix="kernelevolve-emulator-") as scratch:
        arena = Arena(target, tuple(workloads), Oracle(target, Path(scratch), 0))
        program = candidate_program(artifact, entry, Sandbox.open(cache_dir), cache_dir, 1)
        try:
            with Runner(program, arena, LIMITS) as runner:
                return _compared(runner, arena)
        finally:
            arena.close()


def _compared(runner: Runner, arena: Arena) -> tuple[Diagnostic, ...]:
    try:
        runner.load(60.0)
    except RunnerFailed as failure:
        return failure.diagnostics
    found: list[Diagnostic] = []
    for number, layout in enumerate(arena.layout.workloads):
        try:
            if runner.has_prepare:
                runner.prepare(number)
            runner.outputs.poison(number, 0)
            runner.call(number, [0])
            outputs = runner.outputs.read(number, 0)
            found += compare(arena.target, layout.workload, arena.inputs(number, 0), outputs, arena.truth(number, 0))
        except RunnerFailed as failure:
            found += failure.diagnostics
            if any(d.kind != "raised" for d in failure.diagnostics):
                break  # the process is gone
    return tuple(found)
