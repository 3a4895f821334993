"""Queues of candidates drained on the machine that has their device, the most promising first."""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import cast

from kernelevolve import hardware, targets
from kernelevolve.catalog import EXECUTORS
from kernelevolve.errors import UsageError
from kernelevolve.executors import Executor, judged
from kernelevolve.harness.agreement import Agreement, agreement
from kernelevolve.languages import language_for
from kernelevolve.resources import targets_dir
from kernelevolve.rest import AtRest
from kernelevolve.runs import QueueResults, read_queue
from kernelevolve.schema import (
    CalibrationJob,
    Candidate,
    Diagnostic,
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
    """How far queues were drained."""

    target: Target
    hardware: Hardware
    queued: int
    results: tuple[Path, ...]
    """beside each queue"""
    drained: tuple[Drained, ...]
    """in the order of the queues"""
    left: int
    """of the candidates that were asked for"""
    agreement: Agreement | None
    """of estimates and measurements; None where there are too few pairs"""
    rest: AtRest
    """what the baselines take"""
    runs: Mapping[str, str]
    """digest of a candidate to the run that queued it, or the name of its file where none did"""

    @property
    def best(self) -> Drained | None:
        """The one that is faster than the baselines by most; None where none is."""
        passed = [d for d in self.drained if isinstance(d.evaluation, Passed) and d.evaluation.fitness > 1]
        return max(passed, key=lambda d: cast(Passed, d.evaluation).fitness, default=None)


Listener = Callable[[Drained, int], None]
"""Hears of each candidate that was judged just now, and how many are left."""


def drain(settings: Settings, paths: Sequence[Path], listen: Listener, *, top: int | None = None) -> Outcome:
    """Judge the first `top` candidates of each queue (None for all), within `settings.minutes` where they are given.

    Several queues are of one target: their candidates go by turns, `settings.workers` at once. Each evaluation is on
    the disk as soon as it is made, and one that is there isn't made again. Raises `UsageError` for a queue that isn't
    for this machine or this target, `JudgeError` and `StoreError`.
    """
    queues = [read_queue(path) for path in paths]
    target, machine = _target(settings, queues), _machine(settings, queues)
    wanted = [queue.entries[:top] for queue in queues]
    rest, done = AtRest(), dict[str, Drained]()
    with ExitStack() as open_:
        results = [open_.enter_context(QueueResults.beside(path)) for path in paths]
        for kept, entries in zip(results, wanted, strict=True):
            known = {e.candidate: e for e in kept.read() if e.target == target.digest}
            for entry in entries:
                if (earlier := known.get(entry.candidate.digest)) is not None:
                    rest.saw(earlier)
                    done[entry.candidate.digest] = Drained(entry, earlier, True)
        beside = {e.candidate.digest: kept for kept, entries in zip(results, wanted, strict=True) for e in entries}
        asked = {e.candidate.digest: e for turn in zip_longest(*wanted) for e in turn if e is not None}
        open_entries = [entry for digest, entry in asked.items() if digest not in done]
        for one in open_.enter_context(closing(_judged(settings, target, machine, open_entries, rest))):
            digest = one.entry.candidate.digest
            beside[digest].append(one.evaluation)
            done[digest] = one
            listen(one, len(asked) - len(done))
    in_order = dict.fromkeys(digest for entries in wanted for digest in _digests(entries))
    drained = tuple(done[digest] for digest in in_order if digest in done)
    return Outcome(
        target=target, hardware=machine, queued=sum(len(queue.entries) for queue in queues),
        results=tuple(kept.path for kept in results), drained=drained, left=len(asked) - len(done),
        agreement=_agreement(drained), rest=rest,
        runs=dict(_runs(queues, paths)),
    )  # fmt: skip


def _runs(queues: Sequence[Queue], paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for queue, path in zip(queues, paths, strict=True):
        for digest in _digests(queue.entries):
            yield digest, queue.run or path.stem


def _digests(entries: Iterable[QueueEntry]) -> Iterator[str]:
    return (entry.candidate.digest for entry in entries)


def _target(settings: Settings, queues: Sequence[Queue]) -> Target:
    names = {queue.target for queue in queues}
    if len(names) > 1:
        raise UsageError(f"the queues are of several targets: {', '.join(sorted(names))}", remedy="drain one's at once")
    target = targets.load(names.pop(), targets_dir(settings.targets))
    if any(queue.target_digest != target.digest for queue in queues):
        raise UsageError(
            f"the target {target.name} here isn't the one that the queue was made for",
            remedy="use the same version of it (--targets), or search again with this one",
        )
    return target


def _machine(settings: Settings, queues: Sequence[Queue]) -> Hardware:
    """The device that the queues are for, if it is here."""
    present, keys = hardware.detect_all(), sorted({queue.hardware_key for queue in queues})
    for key in keys:
        if not any(key in (h.key, *h.aliases) for h in present):
            raise UsageError(
                f"the queue is for {key}, which isn't here: this machine has {', '.join(h.key for h in present)}",
                remedy="drain it on a machine that has such a device",
            )
    if len(keys) > 1:
        raise UsageError(f"the queues are for several devices: {', '.join(keys)}", remedy="drain one's at once")
    machine = hardware.measured(keys[0], settings.threads, settings.cache)
    for language in {entry.candidate.language for queue in queues for entry in queue.entries}:
        language_for(language, machine)
    return machine


def _judged(
    settings: Settings, target: Target, machine: Hardware, entries: Sequence[QueueEntry], rest: AtRest
) -> Generator[Drained, None, None]:
    """Each as it comes in; `rest` learns from all of them."""
    if not entries:
        return
    began = time.monotonic()
    executor: Executor = EXECUTORS.load("local")(EXECUTORS.load("local").Config(workers=settings.workers_on(machine)))
    threads, cache_dir = settings.threads_on(machine), str(settings.cache)
    with ThreadPoolExecutor(executor.concurrency) as lanes, closing(executor):
        calibration = executor.calibrate(
            CalibrationJob(
                target=target, hardware=machine, threads=threads, sandbox=settings.require_sandbox, cache_dir=cache_dir
            )
        )
        rest.calibrated(calibration)
        fastest = {w: (calibration.fastest(w),) for w in calibration.times}

        def judge(entry: QueueEntry) -> Drained:
            candidate = entry.candidate
            findings = language_for(candidate.language, machine).admit(candidate.files, candidate.entry)
            if findings:
                return Drained(entry, _refused(candidate, target, findings), False)
            job = Job(
                target=target, candidate=candidate, hardware=machine, purpose="eval", baselines=fastest,
                rest_us=rest.us, threads=threads, sandbox=settings.require_sandbox, cache_dir=cache_dir,
            )  # fmt: skip
            return Drained(entry, judged(executor, job), False)

        waiting, flights = deque(entries), set[Future[Drained]]()
        while waiting or flights:
            in_time = settings.minutes is None or time.monotonic() - began <= settings.minutes * 60
            while in_time and waiting and len(flights) < executor.concurrency:
                flights.add(lanes.submit(judge, waiting.popleft()))
            if not flights:
                return
            landed, flights = wait(flights, return_when=FIRST_COMPLETED)
            for flight in landed:
                rest.saw(flight.result().evaluation)
                yield flight.result()


def _refused(candidate: Candidate, target: Target, findings: tuple[Diagnostic, ...]) -> Failed:
    return Failed(candidate=candidate.digest, target=target.digest, purpose="eval", stage="parse", diagnostics=findings)


def _agreement(drained: Sequence[Drained]) -> Agreement | None:
    """Of the candidates that have both numbers, on the same workloads."""
    pairs = []
    for one in drained:
        if isinstance(one.evaluation, Passed) and one.entry.estimated_us is not None and one.measured_us is not None:
            timed = {m.workload for m in one.evaluation.measurements}
            if timed == {e.workload for e in one.entry.estimates}:
                pairs.append((one.entry.estimated_us, one.measured_us))
    return agreement([e for e, _ in pairs], [m for _, m in pairs])
