"""A queue of candidates drained on the machine that has their device: judged one by one, the most promising first."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kernelevolve import hardware, targets
from kernelevolve.catalog import EXECUTORS
from kernelevolve.errors import UsageError
from kernelevolve.executors import Executor, judged
from kernelevolve.harness.agreement import Agreement, agreement
from kernelevolve.languages import language_for
from kernelevolve.resources import targets_dir
from kernelevolve.runs import QueueResults, read_queue
from kernelevolve.schema import (
    CalibrationJob,
    Evaluation,
    Failed,
    Hardware,
    Job,
    Passed,
    Queue,
    QueueEntry,
    Target,
)
from kernelevolve.settings import Settings


@dataclass(frozen=True)
class Drained:
    """A candidate of the queue with what the judge said of it."""

    entry: QueueEntry
    evaluation: Evaluation
    earlier: bool
    """in an earlier sitting"""

    @property
    def measured_us(self) -> float | None:
        """Geometric mean over the workloads of the candidate's time, microseconds; None where it failed."""
        if not isinstance(self.evaluation, Passed):
            return None
        times = [m.candidate_us for m in self.evaluation.measurements]
        return math.exp(sum(map(math.log, times)) / len(times))


@dataclass(frozen=True)
class Outcome:
    """How far a queue was drained."""

    queue: Queue
    results: Path
    drained: tuple[Drained, ...]
    """in the order of the queue"""
    left: int
    """of the candidates that were asked for"""
    agreement: Agreement | None
    """of estimates and measurements; None where there are too few pairs"""


Listener = Callable[[Drained, int], None]
"""Hears of each candidate that was judged just now, and how many are left."""


def drain(settings: Settings, path: Path, listen: Listener, *, top: int | None = None) -> Outcome:
    """Judge the first `top` candidates of a queue (None for all), within `settings.minutes` where they are given.

    Each evaluation is on the disk before the next candidate is begun, and one that is there isn't made again.
    Raises `UsageError` for a queue that isn't for this machine or this target, `JudgeError` and `StoreError`.
    """
    queue = read_queue(path)
    target, machine = _target(settings, queue), _machine(settings, queue)
    wanted = queue.entries[:top]
    with QueueResults.beside(path) as results:
        known = {e.candidate: e for e in results.read() if e.target == target.digest}
        done = [Drained(e, known[e.candidate.digest], True) for e in wanted if e.candidate.digest in known]
        open_ = [e for e in wanted if e.candidate.digest not in known]
        for drained in _judged(settings, target, machine, open_):
            results.append(drained.evaluation)
            done.append(drained)
            listen(drained, len(wanted) - len(done))
    order = {entry.candidate.digest: position for position, entry in enumerate(wanted)}
    done.sort(key=lambda drained: order[drained.entry.candidate.digest])
    return Outcome(queue, results.path, tuple(done), len(wanted) - len(done), _agreement(done))


def _target(settings: Settings, queue: Queue) -> Target:
    target = targets.load(queue.target, targets_dir(settings.targets))
    if target.digest != queue.target_digest:
        raise UsageError(
            f"the target {target.name} here isn't the one that the queue was made for",
            remedy="use the same version of it (--targets), or search again with this one",
        )
    return target


def _machine(settings: Settings, queue: Queue) -> Hardware:
    """The device that the queue is for, if it is here."""
    present = hardware.detect_all()
    if not any(queue.hardware_key in (h.key, *h.aliases) for h in present):
        raise UsageError(
            f"the queue is for {queue.hardware_key}, which isn't here: this machine has "
            f"{', '.join(h.key for h in present)}",
            remedy="drain it on a machine that has such a device",
        )
    machine = hardware.measured(queue.hardware_key, settings.threads, settings.cache)
    for language in {entry.candidate.language for entry in queue.entries}:
        language_for(language, machine)
    return machine


def _judged(
    settings: Settings, target: Target, machine: Hardware, entries: list[QueueEntry]
) -> Iterator[Drained]:  # fmt: skip
    if not entries:
        return
    began = time.monotonic()
    executor: Executor = EXECUTORS.load("local")(EXECUTORS.load("local").Config(workers=1))
    threads, cache_dir = settings.threads_on(machine), str(settings.cache)
    try:
        calibration = executor.calibrate(
            CalibrationJob(
                target=target, hardware=machine, threads=threads, sandbox=settings.require_sandbox, cache_dir=cache_dir
            )
        )
        fastest = {w: (calibration.fastest(w),) for w in calibration.times}
        for entry in entries:
            if settings.minutes is not None and time.monotonic() - began > settings.minutes * 60:
                return
            candidate = entry.candidate
            findings = language_for(candidate.language, machine).admit(candidate.files, candidate.entry)
            job = Job(
                target=target, candidate=candidate, hardware=machine, purpose="eval", baselines=fastest,
                threads=threads, sandbox=settings.require_sandbox, cache_dir=cache_dir,
            )  # fmt: skip
            refused = Failed(
                candidate=candidate.digest, target=target.digest, purpose="eval", stage="parse", diagnostics=findings
            )
            yield Drained(entry, refused if findings else judged(executor, job), False)
    finally:
        executor.close()


def _agreement(drained: list[Drained]) -> Agreement | None:
    """Of the candidates that have both numbers, on the same workloads."""
    pairs = []
    for one in drained:
        if isinstance(one.evaluation, Passed) and one.entry.estimated_us is not None and one.measured_us is not None:
            timed = {m.workload for m in one.evaluation.measurements}
            if timed == {e.workload for e in one.entry.estimates}:
                pairs.append((one.entry.estimated_us, one.measured_us))
    return agreement([e for e, _ in pairs], [m for _, m in pairs])
