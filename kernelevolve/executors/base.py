"""The seam between the search and the machines that judge candidates."""

from concurrent.futures import Future
from typing import ClassVar, Protocol

from kernelevolve.schema import Calibration, CalibrationJob, Evaluation, Job


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
