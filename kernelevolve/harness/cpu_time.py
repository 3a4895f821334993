"""What a candidate's process computes, by the operating system's clocks: on which threads, and on how many at once.

A wall clock around a call tells neither of work that goes on after it, nor of more threads than the run allows.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.schema import Cheat, Device

OTHERS = 0.1
"""Share of the work that others than the calling thread may do where one thread is allowed."""

SPARE = 0.25
"""Threads beyond those allowed that may be at work on average, where several are: a process is awake a little longer
than the judge knows."""

REST_S, REST_LOOKS = 0.03, 20
"""Seconds for which a process is left alone, and how often at most until it is at rest."""


@dataclass(frozen=True)
class CpuTime:
    """Nanoseconds since the start of a process."""

    total: int
    """of all threads, ended ones too"""
    calling: int
    """of the thread that calls the kernel"""
    awake: int
    """of the wall's clock, while it wasn't held still"""
    grain: int = 0
    """by which `calling` may be off"""

    @classmethod
    def of(cls, runner: Runner, workload: int) -> "CpuTime":
        """Now. Raises `RunnerFailed` where the process is gone."""
        clock = (~runner.pid << 3) | 2  # what clock_getcpuclockid(3) answers for another process
        try:
            calling, grain = _thread_ns(Path(f"/proc/{runner.pid}/task/{runner.pid}"))
            return cls(time.clock_gettime_ns(clock), calling, runner.awake_ns, grain)
        except OSError as error:
            raise runner.gone(workload) from error

    def since(self, earlier: "CpuTime") -> "CpuTime":
        """What was added."""
        added = (self.total - earlier.total, self.calling - earlier.calling, self.awake - earlier.awake)
        return CpuTime(*added, self.grain)


@contextmanager
def counted(runner: Runner, workload: int, device: Device, threads: int) -> Iterator[None]:
    """While a CPU candidate is timed. Raises `RunnerFailed` where more threads were at work than the run allows."""
    if device != "cpu":
        yield
        return
    before = CpuTime.of(runner, workload)
    yield
    threads_kept(CpuTime.of(runner, workload).since(before), threads, runner.name(workload))


def at_rest(runner: Runner, workload: int) -> None:
    """Raises `RunnerFailed` where the process goes on computing though nothing is asked of it.

    OpenMP's threads, and others that wait for the next call, spin for milliseconds before they sleep.
    """
    runner.resume()
    for _ in range(REST_LOOKS):
        time.sleep(REST_S)
        before = CpuTime.of(runner, workload)
        time.sleep(REST_S)
        used = CpuTime.of(runner, workload).since(before)
        if used.total < OTHERS * used.awake:
            return
    raise RunnerFailed(
        Cheat(
            message=f"{used.total / used.awake:.1f} threads are at work though run has returned and nothing is asked",
            advice="let threads that wait for the next call sleep after a millisecond: who serves the kernel needs "
            "the cores",
            name="never at rest",
            workload=runner.name(workload),
        )
    )


def threads_kept(used: CpuTime, threads: int, workload: str) -> None:
    """Raises `RunnerFailed` where more threads were at work than the run allows, in calls or after them."""
    others = (used.total - used.calling - used.grain) / max(1, used.total)
    at_once = used.total / max(1, used.awake)
    if threads == 1 and others > OTHERS:
        found = f"other threads than the calling one did {others:.0%} of the work, and the run allows one"
    elif threads > 1 and at_once > threads + SPARE:
        found = f"{at_once:.1f} threads were at work on average, and the run allows {threads}"
    else:
        return
    raise RunnerFailed(
        Cheat(
            message=f"{workload}: {found}",
            advice="compute on the calling thread and OpenMP's, of which there are as many as the run allows, and be "
            "done when run returns; --threads allows more",
            name="more threads than allowed",
            workload=workload,
        )
    )


def _thread_ns(task: Path) -> tuple[int, int]:
    """Of a thread, and by how much a difference of two readings may be off."""
    try:
        return int((task / "schedstat").read_text().split()[0]), 0
    except FileNotFoundError:  # a kernel without scheduler statistics tells ticks, mostly of 10 ms
        user, system = (task / "stat").read_text().rpartition(")")[2].split()[11:13]
        tick = 10**9 // os.sysconf("SC_CLK_TCK")
        return (int(user) + int(system)) * tick, 2 * tick
