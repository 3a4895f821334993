"""The real judge around candidates for a GPU that isn't here: their kernels run in an interpreter, on copies.

For what is judged of a candidate beside its speed; no time that comes out of it means anything.
"""

from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kernelevolve.executors.local import LocalExecutor
from kernelevolve.schema import Calibration, CalibrationJob, Evaluation, Job

if TYPE_CHECKING:
    from kernelevolve.harness.judge import Judge


class InterpretedExecutor(LocalExecutor):
    """Judge processes that pretend to have the job's device."""

    name: ClassVar[str] = "interpreted"

    def calibrate(self, job: CalibrationJob) -> Calibration:
        """Time the baselines against each other, on this machine's CPU."""
        return self._queue(_calibrate, job, tries=1).result()

    def submit(self, job: Job) -> Future[Evaluation]:
        """Queue a job; a judge that dies of it is replaced once, then the future raises `JudgeError`."""
        return self._queue(_evaluate, job, tries=2)


@cache
def _judge(cache_dir: Path) -> "Judge":
    from kernelevolve.harness.access import INTERPRETED  # imports torch, which the calling process doesn't need
    from kernelevolve.harness.judge import Judge

    return Judge(cache_dir, INTERPRETED)


def _evaluate(job: Job) -> Evaluation:
    return _judge(Path(job.cache_dir)).evaluate(job)


def _calibrate(job: CalibrationJob) -> Calibration:
    return _judge(Path(job.cache_dir)).calibrate(job)
