"""A candidate under a profiler, once it has passed: what bounds it, for whoever writes the next one.

What a profiler reports was taken in the candidate's own process or beside it, and is never read as a time or a verdict.
"""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kernelevolve.harness.arena import Arena
from kernelevolve.harness.profilers.base import Profiler, Refused
from kernelevolve.harness.profilers.ncu import Ncu
from kernelevolve.harness.profilers.proton import Proton
from kernelevolve.harness.profilers.rocprof import Rocprof
from kernelevolve.harness.programs import Program
from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.schema import Counters, Hardware, Limits

log = logging.getLogger(__name__)

SECONDS = 120.0
"""For a profiler to run every launch a dozen times, and to end."""

Make = Callable[[Path], Program]
"""The candidate's program, with a folder for its report."""


def counters(make: Make, arena: Arena, workload: int, hardware: Hardware, load_s: float) -> tuple[Counters, ...]:
    """What the first profiler that has something to tell says of one workload; none where none has."""
    name = arena.layout.workloads[workload].workload.name
    for profiler in profilers_for(hardware):
        with tempfile.TemporaryDirectory(prefix="kernelevolve-profile-") as folder:
            report = Path(folder) / "report"
            try:
                text = _recorded(profiler, make(report), arena, workload, report=report, load_s=load_s)
                found = profiler.parse(text, name)
            except RunnerFailed as failure:
                log.info("%s: the candidate fails under it: %s", profiler.name, failure)
                continue
        if not isinstance(found, Refused):
            return found
        log.warning("%s (%s)", found.message, found.advice)
    return ()


def profilers_for(hardware: Hardware) -> tuple[Profiler, ...]:
    """The profilers of this machine for a device, the one that tells most first."""
    chosen: tuple[Profiler, ...] = (Ncu(), Proton()) if hardware.vendor == "nvidia" else (Rocprof(), Proton())
    return tuple(profiler for profiler in chosen if profiler.available())


def _recorded(profiler: Profiler, program: Program, arena: Arena, workload: int, *, report: Path, load_s: float) -> str:
    """The report of one call. Raises `RunnerFailed`."""
    outside = not isinstance(profiler, Proton)
    if outside:
        argv = tuple(profiler.wrap(program.argv, report))
        program = replace(program, argv=argv, readable=(*program.readable, *profiler.folders()), role="profiled")
    with Runner(program, arena, Limits(call_s=SECONDS)) as runner:
        runner.load(load_s)
        if runner.has_prepare:
            runner.prepare(workload)
        runner.call(workload, [0], first=True)
        if not outside:
            runner.record(workload, [1])
        runner.finish(SECONDS)
    return profiler.read(report)
