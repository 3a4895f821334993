"""Triage in processes of this machine, for a device that isn't here: the judge's place in a search without one."""

from concurrent.futures import Future
from typing import ClassVar

from kernelevolve.executors.local import LocalExecutor
from kernelevolve.schema import Calibration, CalibrationJob, Environment, Evaluation, Job


class TriageExecutor(LocalExecutor):
    """Says `Triaged` or `Failed` of a candidate. Nothing is timed, so a calibration has no times either."""

    name: ClassVar[str] = "triage"

    def calibrate(self, job: CalibrationJob) -> Calibration:
        """No baseline's time."""
        environment = Environment(hardware_key=job.hardware.key, threads=job.threads, versions={}, sandbox=())
        return Calibration(target=job.target.digest, times={}, environment=environment)

    def submit(self, job: Job) -> Future[Evaluation]:
        """Queue a job; a process that dies of it is replaced once, then the future raises `JudgeError`."""
        return self._queue(_triage, job, tries=2)


def _triage(job: Job) -> Evaluation:
    from kernelevolve.harness.triaged import triaged  # needs Triton's package, which the calling process doesn't

    return triaged(job)
