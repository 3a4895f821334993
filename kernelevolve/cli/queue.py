"""What `search --triage` leaves behind, and what `eval --queue` makes of it."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kernelevolve.cli import formats, output
from kernelevolve.cli.ending import Ending, published
from kernelevolve.cli.options import CANDIDATE_FAILED, NO_WIN
from kernelevolve.schema import Failed, Passed, Queue, QueueEntry
from kernelevolve.settings import Settings

if TYPE_CHECKING:
    from kernelevolve.drain import Drained, Outcome
    from kernelevolve.harness.agreement import Agreement
    from kernelevolve.search import SearchResult

_SHOWN = 10
"""Entries of a queue that a person is shown."""


def queued(chosen: Settings, result: "SearchResult", *, as_json: bool) -> bool:
    """Write the queue of a search that was made without the device, and tell of it; whether anything is in it."""
    from kernelevolve.queueing import queue_of
    from kernelevolve.runs import Runs, write_queue
    from kernelevolve.store import SqlStore

    runs = Runs(chosen.runs)
    with SqlStore.open(runs.database, read_only=True) as store:
        queue = queue_of(store.run(result.run))
    path = runs.queue_path(result.run)
    write_queue(path, queue)
    if as_json:
        output.document(queue_document(result, queue, path))
    else:
        _tell(result, queue, path)
    return bool(queue.entries)


def queue_document(result: "SearchResult", queue: Queue, path: Path) -> dict[str, object]:
    """What `search --triage --json` prints. Every time in it is an estimate."""
    return {
        "run": result.run,
        "target": result.target,
        "hardware": result.hardware_key,
        "evaluated": result.evaluated,
        "failed": result.failed,
        "queued": len(queue.entries),
        "queue": str(path),
        "entries": [_entry(entry) for entry in queue.entries],
        "stopped": result.stopped,
        "seconds": result.seconds,
    }


def drain(chosen: Settings, paths: Sequence[Path], *, top: int | None, certify: bool, as_json: bool) -> int:
    """Judge queues' candidates on the device that is here, and certify the best if so wished; the exit code."""
    from kernelevolve.drain import drain as empty

    try:
        outcome = empty(chosen, paths, _say, top=top)
        ending = _certified(chosen, outcome) if certify else None
    except KeyboardInterrupt:
        queues = " ".join(f"--queue {path}" for path in paths)
        output.note(f"interrupted; what was measured is kept; go on with: kernelevolve eval {queues}")
        raise
    if as_json:
        output.document(drain_document(outcome, ending))
    else:
        _tell_drained(outcome)
        if ending is not None:
            output.text(f"{ending.verdict.replace('_', ' ')}: {ending.message}")
    if outcome.drained and not any(isinstance(d.evaluation, Passed) for d in outcome.drained):
        return CANDIDATE_FAILED
    return NO_WIN if ending is not None and ending.verdict != "certified" else 0


def _certified(chosen: Settings, outcome: "Outcome") -> Ending:
    """Certify the best candidate of the queues, and publish it."""
    from kernelevolve.certify import Subject, certify

    best = outcome.best
    if best is None:
        return Ending("no_win", "nothing beats the baselines here")
    output.note(f"certifying {best.entry.candidate.label} on held-out workloads")
    subject = Subject(
        target=outcome.target, hardware=outcome.hardware, threads=chosen.threads_on(outcome.hardware),
        sandbox=chosen.require_sandbox, run=outcome.runs[best.entry.candidate.digest], rest=outcome.rest,
    )  # fmt: skip
    return published(certify(best.entry.candidate, subject, chosen), chosen)


def drain_document(outcome: "Outcome", ending: Ending | None) -> dict[str, object]:
    """What `eval --queue --json` prints."""
    return {
        "target": outcome.target.name,
        "hardware": outcome.hardware.key,
        "queued": outcome.queued,
        "results": [str(path) for path in outcome.results],
        "left": outcome.left,
        "evaluated": [_drained(one) for one in outcome.drained],
        "agreement": None if outcome.agreement is None else vars(outcome.agreement),
        "verdict": ending.verdict if ending else None,
        "message": ending.message if ending else None,
        "entry": str(ending.entry) if ending and ending.entry else None,
    }


def _entry(entry: QueueEntry) -> dict[str, object]:
    return {
        "candidate": entry.candidate.digest,
        "label": entry.candidate.label,
        "estimated_us": entry.estimated_us,
        "estimates": entry.estimates,
    }


def _drained(one: "Drained") -> dict[str, object]:
    evaluation = one.evaluation
    return {
        "candidate": one.entry.candidate.digest,
        "label": one.entry.candidate.label,
        "estimated_us": one.entry.estimated_us,
        "outcome": evaluation.outcome,
        "stage": evaluation.stage if isinstance(evaluation, Failed) else None,
        "measured_us": one.measured_us,
        "speedup": evaluation.speedup if isinstance(evaluation, Passed) else None,
        "interval": evaluation.interval if isinstance(evaluation, Passed) else None,
        "earlier": one.earlier,
        "diagnostics": evaluation.diagnostics,
    }


def _tell(result: "SearchResult", queue: Queue, path: Path) -> None:
    spent = formats.duration(result.seconds)
    counts = f"{result.evaluated} looked at, {result.failed} failed, stopped by {result.stopped}, {spent}"
    output.text(f"{result.target} for {result.hardware_key}, without the device: {counts}")
    if queue.entries:
        output.text("estimates by a static model, not measurements; the geometric mean over the workloads:")
        output.table(
            (">#", ">ESTIMATE, US", "POSSIBLE, US", "BOUND", "CANDIDATE"),
            [_row(number, entry) for number, entry in enumerate(queue.entries[:_SHOWN], 1)],
        )
        more = len(queue.entries) - _SHOWN
        output.text(f"queue: {path} ({len(queue.entries)} candidates{f', {more} not shown' if more > 0 else ''})")
        output.text("take it to a machine with the device: kernelevolve eval --queue queue.json")
    else:
        output.text("nothing is left that would be worth the device's time")
    output.text(f"run: {result.run}")


def _row(number: int, entry: QueueEntry) -> tuple[str, ...]:
    if entry.estimated_us is None:
        return str(number), "none", "", "", entry.candidate.label
    low, high = _mean(e.low_us for e in entry.estimates), _mean(e.high_us for e in entry.estimates)
    return (
        str(number),
        formats.microseconds(entry.estimated_us),
        f"{formats.microseconds(low)} to {formats.microseconds(high)}",
        ", ".join(dict.fromkeys(e.bound for e in entry.estimates)),
        entry.candidate.label,
    )


def _mean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def _say(one: "Drained", left: int) -> None:
    output.note(f"{_result(one)}, {one.entry.candidate.label}; {left} left")


def _result(one: "Drained") -> str:
    evaluation = one.evaluation
    if isinstance(evaluation, Passed):
        return f"{formats.microseconds(one.measured_us or 0.0)} us, {formats.speedup(evaluation)}"
    return f"failed at {evaluation.stage}" if isinstance(evaluation, Failed) else evaluation.outcome


def _tell_drained(outcome: "Outcome") -> None:
    passed = [one for one in outcome.drained if isinstance(one.evaluation, Passed)]
    earlier = sum(one.earlier for one in outcome.drained)
    output.text(
        f"{outcome.target.name} on {outcome.hardware.key}: {len(outcome.drained)} evaluated "
        f"({earlier} earlier), {len(outcome.drained) - len(passed)} failed, {outcome.left} left"
    )
    output.table(
        (">#", ">ESTIMATE, US", ">MEASURED, US", ">SPEED-UP", "INTERVAL", "RESULT", "CANDIDATE"),
        [_drained_row(number, one) for number, one in enumerate(outcome.drained, 1)],
    )
    output.text(agreement_line(outcome.agreement))
    output.text(f"results: {', '.join(map(str, outcome.results))}")


def _drained_row(number: int, one: "Drained") -> tuple[str, ...]:
    evaluation, estimated = one.evaluation, one.entry.estimated_us
    head = str(number), "none" if estimated is None else formats.microseconds(estimated)
    if not isinstance(evaluation, Passed):
        first = evaluation.diagnostics[0].message.splitlines()[0][:80] if evaluation.diagnostics else ""
        return (*head, "", "", "", f"{_result(one)}: {first}", one.entry.candidate.label)
    measured = formats.microseconds(one.measured_us or 0.0)
    speedup = formats.times(evaluation.speedup), formats.interval(*evaluation.interval)
    return (*head, measured, *speedup, "passed", one.entry.candidate.label)


def agreement_line(found: "Agreement | None") -> str:
    """How well the estimates ranked, in one line."""
    if found is None:
        return "rank correlation of estimates and measurements: too few pairs to say"
    return (
        f"rank correlation of estimates and measurements over {found.pairs} candidates "
        f"({found.confidence:.0%} bootstrap interval): Spearman {found.spearman:.2f} "
        f"{formats.interval(found.spearman_low, found.spearman_high)}, Kendall {found.kendall:.2f} "
        f"{formats.interval(found.kendall_low, found.kendall_high)}"
    )
