"""More threads at work than a run allows are found, however busy the machine is."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from kernelevolve.harness.cpu_time import CpuTime, _thread_ns, at_rest, threads_kept
from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.schema import Crash

SECOND = 10**9
ALONE = "x = 0\nwhile True: x += 1"
BESIDE = "import hashlib, threading, time\nwork = bytes(1 << 20)\n\ndef go():\n  while True: hashlib.sha256(work)\n" \
    "threading.Thread(target=go).start()\ntime.sleep(100)"  # fmt: skip


@dataclass
class Process:
    """As much of a runner as its clocks need."""

    pid: int

    @property
    def awake_ns(self) -> int:
        return time.monotonic_ns()

    def resume(self) -> None:
        """It was never held still."""

    def name(self, _workload: int) -> str:
        return "w"

    def gone(self, _workload: int) -> RunnerFailed:
        return RunnerFailed(Crash(message="gone", advice="stay", exit_code=0))


@pytest.fixture
def begun() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def used(script: str, begun: list[subprocess.Popen[bytes]]) -> CpuTime:
    """What a process has computed as soon as it has computed half a second."""
    process = subprocess.Popen(["/usr/bin/env", "python3", "-c", script])
    begun.append(process)
    runner = cast(Runner, Process(process.pid))
    while (found := CpuTime.of(runner, 0)).total < SECOND // 2:
        time.sleep(0.01)
    return found


def test_the_calling_thread_may_do_all_the_work(begun: list[subprocess.Popen[bytes]]) -> None:
    threads_kept(used(ALONE, begun), 1, "w")


def test_a_thread_beside_the_calling_one_is_found(begun: list[subprocess.Popen[bytes]]) -> None:
    with pytest.raises(RunnerFailed, match=r"w: other threads than the calling one did \d+% of the work"):
        threads_kept(used(BESIDE, begun), 1, "w")


def test_work_is_what_was_added_since(begun: list[subprocess.Popen[bytes]]) -> None:
    found = used(BESIDE, begun)
    assert found.since(found) == CpuTime(0, 0, 0)
    threads_kept(found.since(found), 1, "w")


def test_who_spins_for_ever_is_found(begun: list[subprocess.Popen[bytes]]) -> None:
    used(ALONE, begun)
    with pytest.raises(RunnerFailed, match="at work though run has returned and nothing is asked"):
        at_rest(cast(Runner, Process(begun[0].pid)), 0)


def test_who_falls_asleep_after_a_while_is_not(begun: list[subprocess.Popen[bytes]]) -> None:
    used("import time\nwhile time.process_time() < 0.7: pass\ntime.sleep(100)", begun)
    at_rest(cast(Runner, Process(begun[0].pid)), 0)


@pytest.mark.parametrize(("total", "fine"), [(2.0, True), (2.2, True), (2.5, False), (4.0, False)])
def test_several_threads_are_held_against_the_time_in_which_they_could_work(total: float, fine: bool) -> None:
    found = CpuTime(total=int(total * SECOND), calling=SECOND // 10, awake=SECOND)
    if fine:
        threads_kept(found, 2, "w")
        return
    with pytest.raises(RunnerFailed, match="threads were at work on average, and the run allows 2"):
        threads_kept(found, 2, "w")


def test_where_the_system_tells_only_ticks_what_they_can_not_tell_accuses_nobody(
    tmp_path: Path, begun: list[subprocess.Popen[bytes]]
) -> None:
    precise = used(ALONE, begun)
    shutil.copy(f"/proc/{begun[0].pid}/task/{begun[0].pid}/stat", tmp_path / "stat")
    calling, grain = _thread_ns(tmp_path)
    assert abs(calling - precise.calling) <= grain + SECOND // 5, "it went on computing"
    threads_kept(CpuTime(total=grain, calling=0, awake=grain, grain=grain), 1, "w")
    with pytest.raises(RunnerFailed, match="other threads"):
        threads_kept(CpuTime(total=2 * grain, calling=0, awake=2 * grain, grain=grain), 1, "w")


def test_a_process_that_is_gone_is_told_of_as_one() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(RunnerFailed, match="gone"):
        CpuTime.of(cast(Runner, Process(child)), 0)
