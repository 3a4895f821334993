"""What every executor has to keep to: derive a test class, and say how yours is made.

::

    class TestMyExecutor(ExecutorContract):
        @staticmethod
        def make():
            return MyExecutor(MyExecutor.Config())

A fixture `cache_dir` (a folder for builds, best kept for the whole session) comes from your conftest.py.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest

from kernelevolve.errors import KernelevolveError, TargetError
from kernelevolve.executors.base import Executor
from kernelevolve.schema import CalibrationJob, Candidate, Failed, Job, Lineage, Passed, TimingPlan
from kernelevolve.testing.records import SOURCE, a_candidate, a_hardware, a_target

QUICK = TimingPlan(confidence=0.9, min_pairs=4, max_pairs=40, half_width=1.0, turn_us=500.0, seconds=20.0)
"""Few pairs where the machine is quiet, as many as it takes where noise hides a call of this size."""


def a_job(cache_dir: Path, candidate: Candidate | None = None, **changes: Any) -> Job:
    """Evaluate a candidate of the doubling target, quickly."""
    fields: dict[str, Any] = {
        "target": a_target(),
        "candidate": candidate or a_candidate(),
        "hardware": a_hardware(),
        "timing": QUICK,
        "cache_dir": str(cache_dir),
    }
    return Job(**{**fields, **changes})


def a_broken_candidate(body: str = "*static_cast<volatile int*>(nullptr) = 1;") -> Candidate:
    """A kernel that does something else than it should; a read of address 0 by default."""
    source = SOURCE.replace("const float* from", f"{body}\n  const float* from")
    return a_candidate(files={"main.cpp": source}, tunables={}, lineage=Lineage(origin=body))


class ExecutorContract:
    """The suite. `make` has to be overridden."""

    @staticmethod
    def make() -> Executor:
        """An executor; a test closes it."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls) -> Iterator[Executor]:
        """One for the whole class, because the first job of a judge is the slow one."""
        executor = cls.make()
        yield executor
        executor.close()

    def test_something_runs_at_once(self, executor: Executor) -> None:
        """At least one job."""
        assert executor.concurrency >= 1

    def test_a_right_kernel_passes_with_a_measurement_of_every_search_workload(
        self, executor: Executor, cache_dir: Path
    ) -> None:
        """Of the candidate and the target that the job named."""
        job = a_job(cache_dir)
        evaluation = executor.submit(job).result(timeout=120)
        assert isinstance(evaluation, Passed), evaluation
        assert (evaluation.candidate, evaluation.target) == (job.candidate.digest, job.target.digest)
        assert [m.workload for m in evaluation.measurements] == ["n1024"]
        assert evaluation.environment.hardware_key == job.hardware.key

    def test_a_candidates_failure_is_a_value_and_costs_no_other_candidate(
        self, executor: Executor, cache_dir: Path
    ) -> None:
        """Whichever way it fails."""
        bodies = ("*static_cast<volatile int*>(nullptr) = 1;", "_Exit(3);", "undeclared();")
        futures = [executor.submit(a_job(cache_dir, a_broken_candidate(body))) for body in bodies]
        futures.append(executor.submit(a_job(cache_dir)))
        found = [future.result(timeout=120) for future in futures]
        assert [e.stage if isinstance(e, Failed) else e.outcome for e in found] == ["check", "check", "build", "passed"]

    def test_each_future_has_its_own_candidate(self, executor: Executor, cache_dir: Path) -> None:
        """However many are under way."""
        candidates = [a_candidate(tunables={"BLOCK": block}) for block in (8, 16, 32)]
        futures = [executor.submit(a_job(cache_dir, candidate)) for candidate in candidates]
        assert [f.result(timeout=120).candidate for f in futures] == [c.digest for c in candidates]

    def test_the_baselines_are_timed(self, executor: Executor, cache_dir: Path) -> None:
        """On every search workload."""
        target = a_target()
        job = CalibrationJob(target=target, hardware=a_hardware(), timing=QUICK, cache_dir=str(cache_dir))
        calibration = executor.calibrate(job)
        assert calibration.target == target.digest
        assert list(calibration.times) == ["n1024"]
        assert calibration.fastest("n1024") == "eager"

    def test_a_target_that_is_wrong_is_our_failure(self, executor: Executor, cache_dir: Path) -> None:
        """The future raises it, with its remedy, and the executor goes on."""
        files = {**a_target().files, "reference.py": "def reference(x)\n"}
        future = executor.submit(a_job(cache_dir, target=a_target(files=files)))
        with pytest.raises(TargetError) as caught:
            future.result(timeout=120)
        assert "reference.py" in caught.value.message
        assert caught.value.remedy
        assert executor.submit(a_job(cache_dir)).result(timeout=120).outcome == "passed"

    def test_nothing_runs_after_close_and_nobody_waits_forever(self, cache_dir: Path) -> None:
        """Whether a job had begun or was still queued; and closing twice does no harm."""
        resource_tracker.ensure_running()  # Python's own, which stays until this process ends
        before = descendants()
        executor = self.make()
        futures = [executor.submit(a_job(cache_dir)) for _ in range(3)]
        started = descendants() - before
        executor.close()
        executor.close()
        assert not wait(futures, timeout=60).not_done
        for future in futures:
            try:
                assert future.result().outcome == "passed"
            except (CancelledError, KernelevolveError):
                continue
        assert have_ended(started)
        assert descendants() <= before

    def test_a_closed_executor_says_so(self, cache_dir: Path) -> None:
        """Instead of taking a job that nobody will run."""
        executor = self.make()
        executor.close()
        with pytest.raises(KernelevolveError, match="closed"):
            executor.submit(a_job(cache_dir)).result(timeout=60)


def have_ended(processes: set[int], within_s: float = 5.0) -> bool:
    """Whether all of these are gone, or go in a moment: what a killed process held ends a little later."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not processes & set(_parents()):
            return True
        time.sleep(0.01)
    return False


def descendants(of: int | None = None) -> set[int]:
    """Processes on this machine that a process (this one) has started, directly or not, and that haven't ended."""
    parents = _parents()
    found: set[int] = set()
    layer = {of or os.getpid()}
    while layer:
        layer = {pid for pid, parent in parents.items() if parent in layer}
        found |= layer
    return found


def _parents() -> dict[int, int]:
    """Every process that hasn't ended, and its parent."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, *_ = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            parents[int(status.parent.name)] = int(parent)
    return parents
