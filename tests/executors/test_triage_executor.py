"""The executor of a search without the device: no times, failures as values, an end when it is told."""

from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from kernelevolve.errors import KernelevolveError, UsageError
from kernelevolve.executors import Executor
from kernelevolve.executors.triage import TriageExecutor
from kernelevolve.hardware.devices import known
from kernelevolve.schema import CalibrationJob, Candidate, Failed, Job
from kernelevolve.testing.executor_contract import descendants, have_ended
from kernelevolve.testing.records import a_candidate, a_hardware, a_target, a_workload

TARGET = a_target(workloads=(a_workload("big", n=1 << 20, device="gpu"),))
H200 = known("nvidia-h200").hardware


def a_job(cache_dir: Path, candidate: Candidate, **changes: object) -> Job:
    return Job(**{"target": TARGET, "candidate": candidate, "hardware": H200, "cache_dir": str(cache_dir), **changes})


@pytest.fixture
def executor() -> Iterator[Executor]:
    executor = TriageExecutor(TriageExecutor.Config(workers=2))
    yield executor
    executor.close()


def test_a_calibration_has_no_times(executor: Executor, cache_dir: Path) -> None:
    before = descendants()
    found = executor.calibrate(CalibrationJob(target=TARGET, hardware=H200, cache_dir=str(cache_dir)))
    assert (found.target, found.times) == (TARGET.digest, {})
    assert descendants() <= before  # nothing was started for it


def test_each_candidate_gets_its_own_answer_and_our_failures_are_raised(executor: Executor, cache_dir: Path) -> None:
    sources = ("def run(x, y:\n", "def run(x, y):\n    pass\n")
    candidates = [Candidate(language="triton", files={"main.py": text}) for text in sources]
    futures = [executor.submit(a_job(cache_dir, candidate)) for candidate in candidates]
    wrong = executor.submit(a_job(cache_dir, candidates[0], hardware=a_hardware()))
    for future, candidate in zip(futures, candidates, strict=True):
        found = future.result(timeout=120)
        assert isinstance(found, Failed)
        assert (found.candidate, found.stage, found.target) == (candidate.digest, "parse", TARGET.digest)
    with pytest.raises(UsageError, match="test-cpu-2c"):
        wrong.result(timeout=120)


def test_nothing_runs_after_close(cache_dir: Path) -> None:
    resource_tracker.ensure_running()  # Python's own, which stays until this process ends
    before = descendants()
    executor = TriageExecutor(TriageExecutor.Config())
    executor.submit(a_job(cache_dir, Candidate(language="triton", files={"main.py": ""}))).result(timeout=120)
    started = descendants() - before
    assert started
    executor.close()
    assert have_ended(started)
    with pytest.raises(KernelevolveError, match="closed"):
        executor.submit(a_job(cache_dir, a_candidate()))
