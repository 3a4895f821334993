"""What holds a candidate back most, read off what the judge said of it."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from kernelevolve.schema import (
    Bottleneck,
    Cheat,
    CompileError,
    Counters,
    Crash,
    DeviceFault,
    Diagnostic,
    EstimateParts,
    Evaluation,
    Failed,
    GraphVariant,
    LimitExceeded,
    Measurement,
    NumericDifference,
    Passed,
    Profile,
    Raised,
    Triaged,
)

LOW_OCCUPANCY_PCT = 25.0
"""Of resident warps, below which a kernel that neither bandwidth nor arithmetic bounds has too little in flight."""

LAUNCH_SHARE = 0.5
"""Share of a call that goes into starting it, past which that is what holds it back."""

_Kind = TypeVar("_Kind", bound=Diagnostic)

_AT_FAULT: tuple[tuple[type[Diagnostic], str], ...] = (
    (Cheat, "cheat"),
    (CompileError, "compile"),
    (LimitExceeded, "limits"),
    (NumericDifference, "correctness"),
    (DeviceFault, "correctness"),
    (Crash, "correctness"),
    (Raised, "correctness"),
)
"""What stops a candidate, the most telling first; a crash is a kernel that is wrong past the point of answering."""


def bottleneck_of(evaluation: Evaluation) -> Bottleneck:
    """What to change first, with the evidence in a sentence."""
    if isinstance(evaluation, Failed):
        return _failure(evaluation)
    return _speed(evaluation) if isinstance(evaluation, Passed) else _estimate(evaluation)


def _failure(failed: Failed) -> Bottleneck:
    never_ran = failed.stage in ("parse", "build", "load")
    name, found = "correctness", list(failed.diagnostics)
    for kind, named in _AT_FAULT:
        if fitting := [d for d in failed.diagnostics if isinstance(d, kind)]:
            name, found = named, fitting
            break
    if name == "correctness" and never_ran:
        name = "compile"
    message = _first_of(found) if found else "without a finding"
    return Bottleneck(name=name, message=f"it fails at the stage {failed.stage}: {message}")


def _first_of(found: list[Diagnostic]) -> str:
    first = found[0]
    place = f"{first.file}:{first.line}: " if isinstance(first, CompileError) and first.line is not None else ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{place}{first.message}{more}"


def _speed(passed: Passed) -> Bottleneck:
    """By a profiler's word where there is one; else by the workload with the most room to its roofline."""
    launch = next((d for d in _of(passed.diagnostics, GraphVariant) if _launches(d, passed.measurements)), None)
    if launch is not None:
        return Bottleneck(name="latency", message=launch.message)
    counted = next((d for d in _of(passed.diagnostics, Counters) if d.bound is not None), None)
    if counted is not None:
        low = counted.metrics.get("occupancy_pct", 100.0) < LOW_OCCUPANCY_PCT
        name = "occupancy" if counted.bound == "latency" and low else str(counted.bound)
        return Bottleneck(name=name, message=f"under a profiler, {counted.message}")
    profiles = list(_of(passed.diagnostics, Profile))
    if profiles:
        worst = min(profiles, key=lambda p: p.roofline_share)
        return Bottleneck(name=worst.bound, message=f"{worst.message}{_others(worst, profiles)}")
    slowest = min(passed.measurements, key=lambda m: m.speedup)
    return Bottleneck(
        name="unknown",
        message="no ceiling of this machine is known; it does worst on "
        f"{slowest.workload}: {slowest.candidate_us:.4g} us, {slowest.speedup:.3f} times as fast as {slowest.baseline}",
    )


def _launches(graph: GraphVariant, measurements: Iterable[Measurement]) -> bool:
    """Whether most of a call is gone once it is replayed from a graph."""
    usual = next((m.candidate_us for m in measurements if m.workload == graph.workload), 0.0)
    return graph.candidate_us < (1 - LAUNCH_SHARE) * usual


def _others(worst: Profile, profiles: list[Profile]) -> str:
    """How the other workloads compare with the one that has the most room."""
    shares = [p.roofline_share for p in profiles if p is not worst]
    if not shares:
        return ""
    low, high = min(shares), max(shares)
    span = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
    return f"; the other workloads reach {span} of theirs"


def _estimate(triaged: Triaged) -> Bottleneck:
    """By the static model, where nothing was timed: the workload that is furthest from what the device allows."""
    if not triaged.estimates:
        return Bottleneck(name="unknown", message="it was not timed, and its launches could not be looked at")
    furthest = max(triaged.estimates, key=lambda e: (e.room, e.estimated_us))
    least = f", {furthest.room:.2g} times what its bytes and operations need" if furthest.floor_us else ""
    rooms = [e.room for e in triaged.estimates if e is not furthest and e.floor_us]
    others = f"; the other workloads are at {min(rooms):.2g} to {max(rooms):.2g} times theirs" if rooms else ""
    return Bottleneck(
        name=furthest.bound,
        message=f"not timed; a static model expects {furthest.estimated_us:.4g} us on {furthest.workload}{least}: "
        f"{_LIMIT[_longest(furthest.parts)]}, in {furthest.launches} launch{'es' * (furthest.launches != 1)}{others}",
    )


_LIMIT = {
    "memory_us": "bound by the device's memory", "cache_us": "bound by what blocks load through the last cache",
    "compute_us": "bound by arithmetic", "instructions_us": "bound by the issue of instructions",
    "spill_us": "bound by spilled registers", "launch_us": "bound by its launches",
}  # fmt: skip


def _longest(parts: EstimateParts) -> str:
    """The part that takes most of the time."""
    return max(_LIMIT, key=lambda name: float(getattr(parts, name)))


def _of(diagnostics: Iterable[Diagnostic], kind: type[_Kind]) -> Iterator[_Kind]:
    return (d for d in diagnostics if isinstance(d, kind))
