"""What all profilers have in common, and what their counters mean for whoever wrote the kernel."""

import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from kernelevolve.schema import Bound, Counters

Source = Literal["ncu", "proton", "rocprof"]

HIGH_PCT = 60.0
"""A unit that is busier than this is what bounds a kernel (the threshold of Nsight Compute's own rules)."""


@dataclass(frozen=True)
class Refused:
    """The profiler has nothing to tell. No failure of the candidate."""

    message: str
    advice: str


class Profiler(Protocol):
    """A tool that runs a command and reports what its kernels did."""

    name: ClassVar[Source]

    def available(self) -> bool:
        """Whether the tool is on this machine."""
        ...

    def folders(self) -> tuple[Path, ...]:
        """What the tool is made of: it has to see these inside walls."""
        ...

    def wrap(self, argv: Sequence[str], report: Path) -> list[str]:
        """The command under the profiler, which leaves its report at (or in) `report`."""
        ...

    def read(self, report: Path) -> str:
        """The report as text; empty where there is none."""
        ...

    def parse(self, text: str, workload: str | None = None) -> tuple[Counters, ...] | Refused:
        """One finding a kernel, the one that took longest first."""
        ...


def tool(name: str) -> Path | None:
    """A program by its real path: links to it needn't exist inside walls. None where it is missing."""
    found = shutil.which(name)
    return Path(found).resolve() if found is not None else None


@dataclass
class Launch:
    """One launch of a kernel, as a report has it."""

    kernel: str
    duration_us: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    stalls: dict[str, float] = field(default_factory=dict)
    """reason to any measure of how often; only the ratios count"""


def summarise(source: Source, launches: Iterable[Launch], workload: str | None) -> tuple[Counters, ...]:
    """Medians over the launches of each kernel, the kernel that took longest in total first."""
    groups: dict[str, list[Launch]] = {}
    for launch in launches:
        groups.setdefault(launch.kernel, []).append(launch)

    def total(kernel: str) -> float:
        return sum(launch.duration_us or 0.0 for launch in groups[kernel])

    return tuple(
        counters(
            source,
            kernel,
            launches=len(groups[kernel]),
            duration_us=_median([x.duration_us for x in groups[kernel] if x.duration_us is not None]),
            metrics=_medians([x.metrics for x in groups[kernel]]),
            stalls=_medians([x.stalls for x in groups[kernel]]),
            workload=workload,
        )
        for kernel in sorted(groups, key=total, reverse=True)
    )


def counters(
    source: Source,
    kernel: str,
    *,
    launches: int,
    duration_us: float | None,
    metrics: Mapping[str, float],
    stalls: Mapping[str, float],
    workload: str | None,
) -> Counters:
    """The finding about one kernel, with its bound named and advice by bound, first stall reason and waste."""
    shares = _shares(stalls)
    bound = bound_of(metrics)
    took = f", {duration_us:.1f} us" if duration_us is not None else ""
    top = next(iter(shares.items()), None)
    said = [f"{metrics[name]:.0f} % {label}" for name, label in _TOLD.items() if name in metrics]
    if top is not None:
        said.append(f"{top[1]:.0%} of stalls are {top[0]}")
    return Counters(
        message=f"{kernel}{took}, {f'{bound} bound' if bound else 'bound unknown'}"
        + (f": {', '.join(said)}" if said else ""),
        advice="; ".join(_advice(bound, metrics, top[0] if top else None)),
        source=source,
        kernel=kernel,
        workload=workload,
        launches=launches,
        duration_us=duration_us,
        bound=bound,
        metrics=dict(metrics),
        stalls=shares,
    )


def bound_of(metrics: Mapping[str, float]) -> Bound | None:
    """Memory or compute where that is busy, whichever is more; latency where neither is; None where nothing tells."""
    memory = [metrics[name] for name in _MEMORY if name in metrics]
    compute = [metrics[name] for name in _COMPUTE if name in metrics]
    if not memory or not compute:
        return None
    if max(*memory, *compute) < HIGH_PCT:
        return "latency"
    return "memory" if max(memory) >= max(compute) else "compute"


_MEMORY = ("dram_pct", "l2_pct", "memory_unit_pct")
_COMPUTE = ("sm_pct", "tensor_core_pct")
_TOLD = {
    "dram_pct": "of DRAM bandwidth", "l2_pct": "of L2 throughput", "memory_unit_pct": "memory unit busy",
    "sm_pct": "of SM throughput", "tensor_core_pct": "of tensor cores", "occupancy_pct": "occupancy achieved",
}  # fmt: skip

_STALLS = {
    "long_scoreboard": "warps wait for global or local memory: have more loads in flight (asynchronous copies, more "
    "stages), wider ones, or more warps",
    "short_scoreboard": "warps wait for shared memory or special functions: wider shared-memory accesses, fewer bank "
    "conflicts, fewer exponentials",
    "barrier": "warps wait for each other at barriers: fewer of them, smaller blocks, or evenly spread work",
    "mio_throttle": "the queue of shared-memory and special instructions is full: wider accesses, fewer shuffles",
    "lg_throttle": "the queue of global and local accesses is full: vectorise loads and stores, and spill less",
    "math_pipe_throttle": "an arithmetic pipe is full: move work to another (tensor cores, packed half precision)",
    "wait": "warps wait for fixed-latency instructions: more independent work a thread (unroll), or more warps",
    "not_selected": "there are more ready warps than can issue: fewer warps with more work each are as fast",
    "branch_resolving": "warps wait for branches: fewer and more uniform ones",
    "no_instruction": "instructions are not in the cache: a shorter kernel, less unrolling",
    "imc_miss": "constants are not in their cache: index them uniformly within a warp",
    "membar": "warps wait for memory fences: fewer or narrower ones",
    "drain": "warps wait for their last stores: coalesce and vectorise them",
    "gmma": "warps wait for asynchronous tensor-core products: more of them in flight, larger tiles",
    "warpgroup_arrive": "warps of a group wait for each other: even out their work",
    "dispatch_stall": "the dispatcher is held back, often by bank conflicts of registers",
    "tex_throttle": "the texture queue is full: use plain loads",
    "sleeping": "warps sleep on purpose: poll less, or hand over more at a time",
}


def _advice(bound: Bound | None, metrics: Mapping[str, float], stall: str | None) -> Iterable[str]:
    if bound == "memory":
        in_cache = metrics.get("l2_pct", 0.0) > metrics.get("dram_pct", 0.0)
        yield (
            "L2 is busy: reuse more in shared memory and registers, coalesce"
            if in_cache
            else "memory bandwidth is used up: move fewer bytes (fuse, narrow types, read each input once)"
        )
    elif bound == "compute":
        yield (
            "tensor cores are busy: fewer operations or a lower precision"
            if metrics.get("tensor_core_pct", 0.0) >= HIGH_PCT
            else "the arithmetic pipes are busy: fewer instructions, tensor cores where it is a product"
        )
    elif bound == "latency":
        yield "neither bandwidth nor arithmetic is used up: more work in flight, more blocks, fewer dependencies"
        if metrics.get("occupancy_pct", 100.0) < 25:
            yield "occupancy is low: fewer registers or less shared memory a block, or more blocks"
    if stall is not None and stall in _STALLS:
        yield _STALLS[stall]
    if metrics.get("local_bytes", 0.0) > 0:
        yield "local memory is used: registers spill, or an array is indexed by a variable"
    conflicts = metrics.get("bank_conflicts", 0.0) > 0 or metrics.get("bank_conflict_pct", 0.0) > 5
    if conflicts and (bound != "memory" or stall in ("mio_throttle", "short_scoreboard")):
        yield "shared memory has bank conflicts: pad or swizzle its layout"
    if bound is None and stall is None:
        yield "times by kernel only: look first at the kernel that takes longest"


def _shares(stalls: Mapping[str, float]) -> dict[str, float]:
    total = sum(stalls.values())
    ordered = sorted(stalls.items(), key=lambda item: item[1], reverse=True)
    return {name: value / total for name, value in ordered if value > 0} if total > 0 else {}


def _medians(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: statistics.median(table[name] for table in tables if name in table) for name in names}


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
