"""The seam between the search and the machines that judge candidates."""

import logging
from concurrent.futures import Future
from typing import ClassVar, Protocol

from kernelevolve.schema import Calibration, CalibrationJob, Evaluation, Failed, Job

log = logging.getLogger(__name__)


class Executor(Protocol):
    """Runs jobs somewhere. A candidate's failure is a value; an exception from a future is our own failure."""

    name: ClassVar[str]

    @property
    def concurrency(self) -> int:
        """How many jobs really run at once."""

    def calibrate(self, job: CalibrationJob) -> Calibration:
        """Time the target's baselines against each other. Raises `JudgeError`."""

    def submit(self, job: Job) -> Future[Evaluation]:
        """Queue a job. The future raises `JudgeError` when the judge died of it twice."""

    def close(self) -> None:
        """End every process that was started, at once."""


def judged(executor: Executor, job: Job) -> Evaluation:
    """Submit a job and wait for it. Where noise has hidden its time it is looked at once more, as a search does.

    Raises `JudgeError`.
    """
    found = executor.submit(job).result()
    if isinstance(found, Failed) and found.unsettled:
        log.warning("measured once more: %s", found.diagnostics[0].message)
        found = executor.submit(job).result()
    return found
