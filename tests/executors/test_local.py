"""The local executor keeps to the contract, and outlives its judges."""

import os
import signal
import tempfile
import time
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from kernelevolve.errors import JudgeError
from kernelevolve.executors import Executor
from kernelevolve.executors.local import LocalExecutor
from kernelevolve.schema import Job, Limits
from kernelevolve.testing.executor_contract import ExecutorContract, a_broken_candidate, a_job, descendants, have_ended


def make(workers: int = 1) -> LocalExecutor:
    return LocalExecutor(LocalExecutor.Config(workers=workers))


class TestLocal(ExecutorContract):
    @staticmethod
    def make() -> Executor:
        return make(workers=2)


def endless(cache_dir: Path) -> Job:
    """A job that stays at its check until somebody ends it."""
    return a_job(cache_dir, a_broken_candidate("for (volatile int i = 0;; ++i) {}"), limits=Limits(call_s=3.0))


def judges() -> list[int]:
    """Judge processes of this one: they were spawned, so their command line says so."""
    return sorted(p for p in descendants() if b"spawn_main" in _command_line(p))


def kill_a_judge() -> int:
    """Wait until a judge has started something of its own, then kill it; its process id."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for judge in judges():
            if any(b"kernel.so" in _command_line(pid) for pid in descendants(judge)):
                os.kill(judge, signal.SIGKILL)
                return judge
        time.sleep(0.01)
    raise AssertionError("no judge began to run a candidate")


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_a_judge_that_was_killed_is_replaced_and_its_job_done_again(cache_dir: Path) -> None:
    executor = make()
    try:
        future = executor.submit(endless(cache_dir))
        first = kill_a_judge()
        assert future.result(timeout=120).outcome == "failed"
        assert first not in judges()
        assert executor.submit(a_job(cache_dir)).result(timeout=120).outcome == "passed"
    finally:
        executor.close()


@pytest.mark.slow
def test_a_job_that_costs_two_judges_is_our_failure_and_the_next_one_runs(cache_dir: Path) -> None:
    executor = make()
    try:
        future = executor.submit(endless(cache_dir))
        kill_a_judge()
        kill_a_judge()
        with pytest.raises(JudgeError, match="twice") as caught:
            future.result(timeout=120)
        assert caught.value.remedy
        assert executor.submit(a_job(cache_dir)).result(timeout=120).outcome == "passed"
    finally:
        executor.close()


def test_close_in_the_middle_of_a_job_leaves_no_process_and_no_file(
    cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource_tracker.ensure_running()  # Python's own, which stays until this process ends
    before = descendants()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    executor = make()
    future = executor.submit(endless(cache_dir))
    deadline = time.monotonic() + 60
    while not any(b"kernel.so" in _command_line(p) for p in descendants()) and time.monotonic() < deadline:
        time.sleep(0.01)
    started = descendants() - before
    executor.close()
    assert have_ended(started), "with what the judge had started"
    with pytest.raises(JudgeError, match="closed"):
        future.result(timeout=60)
    time.sleep(0.3)  # were the job tried once more, a new judge would show up by now
    assert descendants() <= before
    assert list(tmp_path.iterdir()) == []
