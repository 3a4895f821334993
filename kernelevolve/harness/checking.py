"""The check stage: is a loaded candidate right, again and again, and is it a kernel of its own?"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

from kernelevolve.harness.bench import Bench
from kernelevolve.harness.pressure import Pressure
from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.languages import Language
from kernelevolve.schema import Cheat, Diagnostic, Purpose, Workload

MOST_DIFFERENCES = 6
"""Numeric differences reported for one candidate; a reader needs no more to see the pattern."""

ROUNDS: Mapping[Purpose, int] = {"search": 1, "confirm": 4, "eval": 4, "certify": 16}
"""Draws of two inputs of every check workload, by what rests on the answer. A kernel that was wrong on one draw in
three passed a search and its confirmation (2026-11-26); a certificate it gets one time in 650."""

AGAIN = 3
"""Calls of every timed workload while something else keeps all cores busy: a race that usually passes shows then."""

_OURS = re.compile(
    r"(ld-linux|libc|libm|libmvec|libdl|librt|libpthread|libstdc\+\+|libgcc_s|libgomp|libtvm_ffi|kernel|runner|libatomic"
    r"|libquadmath)[-.\d\w]*$"
)
"""What a compiled candidate's process maps: the C and C++ libraries, OpenMP, tvm-ffi, the runner and the candidate."""


def check(
    bench: Bench,
    runner: Runner,
    timed: tuple[Workload, ...],
    language: Language,
    pressure: Pressure,
    *,
    purpose: Purpose,
) -> dict[str, float]:
    """Compare answers on every workload; microseconds of `prepare` by workload. Raises `RunnerFailed`."""
    late = language.runner == "python"
    prepared = _answers(bench, runner, range(len(bench.workloads)), compiles_late=late)
    small = [number for number, workload in enumerate(bench.workloads) if workload.role == "check"]
    for _ in range(ROUNDS[purpose] - 1):
        for number in small:
            for slot in range(2):
                bench.arena.renew(number, slot)
                runner.refresh(number, slot)
        runner.resume()
        _answers(bench, runner, small, compiles_late=False)
    with pressure.on():
        for workload in timed:
            _again(bench, runner, bench.index(workload.name))
    if language.runner == "native":
        _own_code(runner)
    elif language.name == "triton":
        _own_kernels(bench, runner, bench.index(timed[0].name))
    return prepared


def _answers(bench: Bench, runner: Runner, workloads: Iterable[int], *, compiles_late: bool) -> dict[str, float]:
    """Two inputs of each of these workloads, the differences of several workloads told together."""
    differences: list[Diagnostic] = []
    prepared = {}
    for number in workloads:
        if runner.has_prepare:
            prepared[bench.workloads[number].name] = runner.prepare(number)
        for slot in range(2):
            runner.outputs.poison(number, slot)
            runner.call(number, [slot], first=compiles_late and slot == 0)
            try:
                bench.verify(runner, number, slot)
            except RunnerFailed as failure:
                differences += failure.diagnostics
                break
        if len(differences) >= MOST_DIFFERENCES:
            break
    if differences:
        raise RunnerFailed(*differences[:MOST_DIFFERENCES])
    return prepared


def _again(bench: Bench, runner: Runner, number: int) -> None:
    for _ in range(AGAIN):
        slot = bench.rng.randrange(bench.arena.layout.workloads[number].slots)
        runner.outputs.poison(number, slot)
        runner.call(number, [slot])
        bench.verify(runner, number, slot)


def _own_code(runner: Runner) -> None:
    """Raises `RunnerFailed` where the process of a compiled candidate has loaded a library that does the work."""
    foreign = sorted(name for name in runner.libraries() if not _OURS.fullmatch(name))
    if foreign:
        raise RunnerFailed(
            _wrapper(
                f"it loads {', '.join(foreign)}", "write the operation: only the C++ library and OpenMP are linked"
            )
        )


def _own_kernels(bench: Bench, runner: Runner, number: int) -> None:
    """Raises `RunnerFailed` where the answer is right although no kernel of the candidate's is launched."""
    runner.outputs.poison(number, 0)
    try:
        runner.call_without_kernels(number, 0)
        bench.verify(runner, number, 0)
    except RunnerFailed as failure:
        with suppress(StopIteration):
            called = next(d.message for d in failure.diagnostics if LIBRARY_CALL in d.message)
            raise RunnerFailed(
                _wrapper(called.partition(LIBRARY_CALL)[2].strip(": "), "write the operation instead of calling it")
            ) from failure
        return
    raise RunnerFailed(
        _wrapper("the answer is right without its kernels", "let kernels of your own compute what is asked for")
    )


LIBRARY_CALL = "LibraryCallError"
"""What a runner says of a candidate that calls the operation which it should replace."""


def _wrapper(what: str, advice: str) -> Cheat:
    return Cheat(message=f"a wrapper, not a kernel: {what}", advice=advice, name="wrapper")
