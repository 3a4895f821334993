"""Compares what a Triton candidate computes under the interpreter with the truth, on a target's small workloads."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom

from kernelevolve.hardware.devices import Gpu
from kernelevolve.harness.arena import Arena
from kernelevolve.harness.checks import InterpreterCheck
from kernelevolve.harness.compile_check import LIMITS, write_sources
from kernelevolve.harness.correctness import compare
from kernelevolve.harness.oracle import Oracle
from kernelevolve.harness.programs import MODULE_RUNNER, Program, python_command
from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.harness.sandbox import Sandbox, clean_environment
from kernelevolve.harness.zygote import Preload, zygote
from kernelevolve.languages.triton import Triton, main_file
from kernelevolve.schema import Candidate, Diagnostic, Limits, Target, Uncaptured, Workload

MOST_ELEMENTS = 1 << 20
"""Of a workload's tensors in all: beyond that the interpreter takes more than a few seconds."""
SECONDS = 30.0
"""For all workloads of a candidate; what isn't reached stays unchecked."""
_LOAD_S = 60.0
_CALL_LIMITS = Limits(**{**LIMITS.model_dump(), "call_s": 60.0})
_MOST_DIFFERENCES = 6
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}
_PRELOAD = Preload(
    (MODULE_RUNNER, "kernelevolve.harness.triton_device", "kernelevolve.harness.triton_mends"),
    environment=(("TRITON_INTERPRET", "1"),),
)  # fmt: skip


def interpreter_check(
    candidate: Candidate, target: Target, gpu: Gpu, sandbox: Sandbox, cache_dir: Path, *, wanted: Callable[[], bool]
) -> InterpreterCheck:  # fmt: skip
    """Call the candidate on the target's check workloads for GPUs, with inputs that it has never seen.

    Stops between two workloads once it is no longer `wanted`.
    """
    small = [w for w in target.select("gpu", "check") if elements(target, w) <= MOST_ELEMENTS]
    # The smallest first: should time run out, most have been compared.
    workloads = tuple(sorted(small, key=lambda w: elements(target, w)))
    large = tuple(w.name for w in target.select("gpu", "check") if w not in workloads)
    if not workloads:
        return InterpreterCheck(unchecked=large)
    with tempfile.TemporaryDirectory(prefix="kernelevolve-triage-") as scratch:
        folder = Path(scratch)
        write_sources(candidate, folder / "work")
        started = time.monotonic()
        arena = Arena(target, workloads, Oracle(target, folder, SystemRandom().getrandbits(60)))
        made = time.monotonic()
        try:
            found = _checked(_program(candidate, folder / "work", gpu, sandbox, cache_dir), arena, wanted)
        finally:
            arena.close()
    seconds = {"inputs": made - started, "interpret": time.monotonic() - made}
    return found.model_copy(update={"unchecked": (*found.unchecked, *large), "seconds": seconds})


def elements(target: Target, workload: Workload) -> int:
    """Elements of all tensors of a workload."""
    total = 0
    for tensor in target.tensors:
        count = 1 if tensor.shape is not None else 0
        for size in target.shape(tensor, workload):
            count *= size
        total += count
    return total


def _program(candidate: Candidate, work: Path, gpu: Gpu, sandbox: Sandbox, cache_dir: Path) -> Program:
    main = main_file(candidate.files, candidate.entry) or min(candidate.files)
    arguments = (Triton.name, str(work / main), candidate.entry, "shared", "cpu", gpu.key, "-")
    command, readable = python_command(MODULE_RUNNER, *arguments)
    server = zygote(_PRELOAD, cache_dir)
    return Program(
        argv=command if server is None else (MODULE_RUNNER, *arguments), server=server,
        environment={**clean_environment(), **_ENVIRONMENT}, readable=(*readable, work), sandbox=sandbox,
    )  # fmt: skip


def _checked(program: Program, arena: Arena, wanted: Callable[[], bool]) -> InterpreterCheck:
    """Workload by workload until one brings the process down, too much is wrong, or time is up."""
    names = [w.workload.name for w in arena.layout.workloads]
    checked: list[str] = []
    wrong: list[Diagnostic] = []
    with Runner(program, arena, _CALL_LIMITS) as runner:
        try:
            runner.load(_LOAD_S)
        except RunnerFailed as failure:
            return InterpreterCheck(unchecked=tuple(names), diagnostics=_readable(failure))
        deadline = time.monotonic() + SECONDS
        for number, name in enumerate(names):
            if time.monotonic() > deadline or len(wrong) >= _MOST_DIFFERENCES or not wanted():
                break
            try:
                _compare(runner, arena, number)
            except RunnerFailed as failure:
                wrong += _readable(failure)
                if any(d.kind not in ("numeric", "raised") for d in failure.diagnostics):
                    break  # the process is gone, or stuck
            checked.append(name)
    return InterpreterCheck(
        checked=tuple(checked), unchecked=tuple(n for n in names if n not in checked),
        diagnostics=tuple(dict.fromkeys(wrong))[:_MOST_DIFFERENCES],
    )  # fmt: skip


def _compare(runner: Runner, arena: Arena, number: int) -> None:
    if runner.has_prepare:
        runner.prepare(number)
    runner.outputs.poison(number, 0)
    runner.call(number, [0])
    workload = arena.layout.workloads[number].workload
    outputs = runner.outputs.read(number, 0)
    found = compare(arena.target, workload, arena.inputs(number, 0), outputs, arena.truth(number, 0))
    if found:
        raise RunnerFailed(*found)


def _readable(failure: RunnerFailed) -> tuple[Diagnostic, ...]:
    """What the interpreter can't do is no fault of the candidate's."""
    return tuple(
        Uncaptured(message=f"the interpreter can't run it: {d.message}",
                   advice="nothing is wrong with that; its results are compared on a device only",
                   workload=d.workload)
        if d.kind == "raised" and "not supported in interpreter mode" in d.message else d
        for d in failure.diagnostics
    )  # fmt: skip
