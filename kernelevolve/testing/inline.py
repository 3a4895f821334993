"""An executor without processes of its own: it judges where it is called."""

from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

from kernelevolve.errors import JudgeError, KernelevolveError
from kernelevolve.harness.judge import Judge
from kernelevolve.schema import Calibration, CalibrationJob, Evaluation, Job


class InlineExecutor:
    """The real judge, in this process: `submit` returns when the evaluation is there.

    Candidates and baselines still run in processes of their own. Good for tests and for a debugger; a search would
    wait for every job, and a judge that is killed takes the caller with it.
    """

    name: ClassVar[str] = "inline"

    def __init__(self) -> None:
        self._judges: dict[str, Judge] = {}
        self._closed = False

    @property
    def concurrency(self) -> int:
        """One."""
        return 1

    def calibrate(self, job: CalibrationJob) -> Calibration:
        """Time the baselines against each other."""
        return self._judge(job.cache_dir).calibrate(job)

    def submit(self, job: Job) -> Future[Evaluation]:
        """Evaluate now. The future carries the evaluation, or our own failure."""
        outcome: Future[Evaluation] = Future()
        try:
            outcome.set_result(self._judge(job.cache_dir).evaluate(job))
        except KernelevolveError as error:
            outcome.set_exception(error)
        return outcome

    def _judge(self, cache_dir: str) -> Judge:
        if self._closed:
            raise JudgeError("the executor is closed", remedy="make another one")
        if cache_dir not in self._judges:
            self._judges[cache_dir] = Judge(Path(cache_dir))
        return self._judges[cache_dir]

    def close(self) -> None:
        """End the baselines' processes, give the memory back."""
        self._closed = True
        for judge in self._judges.values():
            judge.close()
        self._judges.clear()
