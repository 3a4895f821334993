"""Judges in processes of this machine."""

import ctypes
import logging
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pydantic import Field

from kernelevolve.errors import JudgeError
from kernelevolve.schema import Calibration, CalibrationJob, Evaluation, Job, Record

if TYPE_CHECKING:
    from kernelevolve.harness.judge import Judge

log = logging.getLogger(__name__)

J = TypeVar("J", Job, CalibrationJob)
A = TypeVar("A", Evaluation, Calibration)


class LocalExecutor:
    """Judge processes; each keeps its inputs and baselines for the whole search."""

    name: ClassVar[str] = "local"

    class Config(Record):
        """Settings of the local executor."""

        workers: int = Field(1, ge=1, description="judge processes")

    def __init__(self, config: Config) -> None:
        self._workers = config.workers
        # A pool of one process each: where all shared one, a judge that dies would take its neighbours' jobs along.
        self._idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        self._judges: list[ProcessPoolExecutor] = []
        self._lock = Lock()
        self._closed = False
        # A judge that is killed leaves its temporary files behind: they lie where `close` removes them.
        self._folder = tempfile.TemporaryDirectory(prefix="kernelevolve-", ignore_cleanup_errors=True)
        for _ in range(config.workers):
            self._idle.put(self._fresh_judge())
        # Judges are started by these threads, which live until `close`: a process would not outlive its thread.
        self._lanes = ThreadPoolExecutor(config.workers, thread_name_prefix="lane")

    def _fresh_judge(self) -> ProcessPoolExecutor:
        # Spawned, not forked: a fork would copy threads' locks, and the judge must not see the caller's memory.
        judge = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_become_judge,
            initargs=(os.getpid(), self._folder.name),
        )
        self._judges.append(judge)
        return judge

    @property
    def concurrency(self) -> int:
        """Judge processes; they build and check at the same time, and take turns to time."""
        return self._workers

    def calibrate(self, job: CalibrationJob) -> Calibration:
        """Time the baselines against each other. Raises `JudgeError` where the judge dies of it."""
        return self._queue(_calibrate, job, tries=1).result()

    def submit(self, job: Job) -> Future[Evaluation]:
        """Queue a job; a judge that dies of it is replaced once, then the future raises `JudgeError`."""
        return self._queue(_evaluate, job, tries=2)

    def _queue(self, work: Callable[[J], A], job: J, tries: int) -> Future[A]:
        with self._lock:
            if self._closed:
                raise _is_closed()
            return self._lanes.submit(self._run, work, job, tries)

    def _run(self, work: Callable[[J], A], job: J, tries: int) -> A:
        """Have an idle judge do the work, and another one when it dies of it."""
        judge = self._idle.get()
        try:
            for _ in range(tries):
                judge, answer = self._begin(judge, work, job)
                try:
                    return answer.result()
                except BrokenProcessPool as error:
                    if not self._closed:
                        log.warning("a judge died: %s", error)
            with self._lock:
                raise _is_closed() if self._closed else JudgeError(f"the judge died {_TIMES[tries]}", remedy=_REMEDY)
        finally:
            self._idle.put(judge)

    def _begin(
        self, judge: ProcessPoolExecutor, work: Callable[[J], A], job: J
    ) -> tuple[ProcessPoolExecutor, Future[A]]:
        """Hand the work to this judge, or to a fresh one where it is dead."""
        with self._lock:
            if self._closed:
                raise _is_closed()
            try:
                return judge, judge.submit(work, job)
            except BrokenProcessPool:
                self._judges.remove(judge)
                judge = self._fresh_judge()
                return judge, judge.submit(work, job)

    def close(self) -> None:
        """End the judges at once; what they started dies with them. Jobs under way raise `JudgeError`."""
        with self._lock:
            self._closed = True
            processes = [process for judge in self._judges for process in (judge._processes or {}).values()]
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        self._lanes.shutdown(wait=True)  # what is still queued ends there with the same error
        for judge in self._judges:
            judge.shutdown(wait=True)
        self._folder.cleanup()


_REMEDY = "look at the log above; out of memory is the usual reason (fewer --workers need less)"
_TIMES = {1: "while it timed the baselines", 2: "twice of one candidate"}


def _is_closed() -> JudgeError:
    return JudgeError("the executor is closed", remedy="make another one")


def _become_judge(parent: int, folder: str) -> None:
    """In each worker: Ctrl-C belongs to the caller, a judge doesn't outlive it, and its files lie in a folder."""
    tempfile.tempdir = folder
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
