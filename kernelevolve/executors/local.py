"""Judges in processes of this machine."""

import ctypes
import logging
import multiprocessing
import os
import signal
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from kernelevolve.errors import JudgeError
from kernelevolve.schema import Calibration, CalibrationJob, Evaluation, Job, Record

if TYPE_CHECKING:
    from kernelevolve.harness.judge import Judge

log = logging.getLogger(__name__)


class LocalExecutor:
    """A pool of judge processes; each keeps its inputs and baselines for the whole search."""

    name: ClassVar[str] = "local"

    class Config(Record):
        """Settings of the local executor."""

        workers: int = Field(1, ge=1, description="judge processes")

    def __init__(self, config: Config) -> None:
        self._workers = config.workers
        self._pool = self._fresh_pool()

    def _fresh_pool(self) -> ProcessPoolExecutor:
        # Spawned, not forked: a fork would copy threads' locks, and the judge must not see the caller's memory.
        return ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_become_judge,
            initargs=(os.getpid(),),
        )

    @property
    def concurrency(self) -> int:
        """Judge processes; they build and check at the same time, and take turns to time."""
        return self._workers

    def calibrate(self, job: CalibrationJob) -> Calibration:
        """Time the baselines against each other. Raises `JudgeError` where the judge dies of it."""
        try:
            return self._pool.submit(_calibrate, job).result()
        except BrokenProcessPool as error:
            self._pool = self._fresh_pool()
            raise JudgeError("the judge died while it timed the baselines", remedy=_REMEDY) from error

    def submit(self, job: Job) -> Future[Evaluation]:
        """Queue a job; a judge that dies of it is replaced once, then the future raises `JudgeError`."""
        outcome: Future[Evaluation] = Future()
        self._try(job, outcome, tries=2)
        return outcome

    def _try(self, job: Job, outcome: Future[Evaluation], tries: int) -> None:
        pool = self._pool

        def finish(done: Future[Evaluation]) -> None:
            error = done.exception() if not done.cancelled() else None
            if done.cancelled():
                outcome.cancel()
            elif error is None:
                outcome.set_result(done.result())
            elif not isinstance(error, BrokenProcessPool):
                outcome.set_exception(error)
            elif tries > 1:
                log.warning("a judge died; trying its candidate once more")
                self._replace(pool)
                self._try(job, outcome, tries - 1)
            else:
                outcome.set_exception(JudgeError("the judge died twice of one candidate", remedy=_REMEDY))

        try:
            pool.submit(_evaluate, job).add_done_callback(finish)
        except BrokenProcessPool:
            self._replace(pool)
            self._try(job, outcome, tries)

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        if self._pool is broken:
            self._pool = self._fresh_pool()

    def close(self) -> None:
        """End the judges at once; what they started dies with them."""
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


_REMEDY = "look at the log above; out of memory is the usual reason (fewer --workers need less)"


def _become_judge(parent: int) -> None:
    """In each worker: Ctrl-C belongs to the caller, and a judge doesn't outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


@cache
def _judge(cache_dir: Path) -> "Judge":
    from kernelevolve.harness.judge import Judge  # imports torch, which the calling process doesn't need

    return Judge(cache_dir)


def _evaluate(job: Job) -> Evaluation:
    return _judge(Path(job.cache_dir)).evaluate(job)


def _calibrate(job: CalibrationJob) -> Calibration:
    return _judge(Path(job.cache_dir)).calibrate(job)
