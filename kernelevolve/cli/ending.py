"""How a search ends: certified, refused, without a win, or as a replay; and what is said of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kernelevolve.cli import formats, output
from kernelevolve.cli.summary import most_frequent_baseline, surest_look
from kernelevolve.cli.waste import Waste
from kernelevolve.schema import Candidate, Entry, Evaluation, Parent, Passed, Refused, Run
from kernelevolve.schema.nowin import NothingWins
from kernelevolve.settings import Settings

if TYPE_CHECKING:
    from kernelevolve.registry.local import LocalRegistry
    from kernelevolve.search import SearchResult, Session

Verdict = Literal["certified", "refused", "no_win", "replayed"]

MOST_CONTENDERS = 3
"""Candidates that certification looks at, one after the other, where those before were wrong."""


@dataclass(frozen=True)
class Ending:
    """What came of the best candidate."""

    verdict: Verdict
    message: str
    entry: Path | None = None
    """where it was published"""


REPLAYED = Ending("replayed", "nothing was measured, so nothing is certified")


def certified(session: "Session", result: "SearchResult", chosen: Settings) -> Ending:
    """Certify what a search has found, unless an earlier sitting has done so, and publish it.

    That is the confirmed candidate of the highest lower end: the best, unless a later one is faster by all that is
    known and not for certain. Where it turns out to be wrong, on inputs that the search never drew, the next one gets
    its chance.
    """
    best = _best(result.best)
    if best is None or result.best is None or best.fitness <= 1:
        return Ending("no_win", "nothing beats the baselines here")
    from kernelevolve.certify import Subject, certify
    from kernelevolve.registry.local import LocalRegistry
    from kernelevolve.runs import Runs
    from kernelevolve.store import SqlStore

    registry = LocalRegistry(chosen.registry)
    with SqlStore.open(Runs(chosen.runs).database) as store:
        run, before = store.run(result.run), store.evaluations(result.run, "certify")
    wrong: list[str] = []
    for candidate in _contenders(result.best.candidate, run):
        outcome = _earlier(candidate, run, before, registry)
        if outcome is None:
            output.note(f"certifying {candidate.label} on held-out workloads")
            outcome = certify(candidate, Subject.of(run), chosen)
        ending = published(outcome, chosen)
        session.conclude(outcome, ending.message if ending.entry is None else str(ending.entry))
        if isinstance(outcome, Entry) or outcome.reason != "failed":
            break
        output.note(f"{candidate.label} is refused: {outcome.message}")
        wrong.append(candidate.label)
    if ending.entry is None:
        return ending
    said = ending.message if candidate == result.best.candidate else f"{candidate.label} {ending.message}"
    return replace(ending, message=f"{said}; refused before it: {', '.join(wrong)}" if wrong else said)


def _contenders(best: Candidate, run: Run) -> list[Candidate]:
    """Those that were confirmed to beat the baselines, of the highest lower end first; of equals the best."""
    confirmed = {best.digest: (0.0, best)}
    for step in run.steps:
        passed = surest_look(step)
        if step.candidate is not None and step.confirmations and isinstance(passed, Passed) and passed.fitness > 1:
            confirmed[step.candidate.digest] = (passed.fitness, step.candidate)
    found = sorted(confirmed.values(), key=lambda pair: pair[0], reverse=True)
    return [candidate for _, candidate in found][:MOST_CONTENDERS]


def published(outcome: Entry | Refused, chosen: Settings) -> Ending:
    """Put an entry into the registry, or say why there is none."""
    from kernelevolve.registry.local import LocalRegistry

    if not isinstance(outcome, Entry):
        return Ending("refused", outcome.message)
    path = LocalRegistry(chosen.registry).publish(outcome)
    return Ending("certified", f"published as {path}", path)


def _earlier(
    candidate: Candidate, run: Run, evaluations: Sequence[Evaluation], registry: "LocalRegistry"
) -> Entry | Refused | None:
    """What an earlier sitting of the run came to with this candidate: a run is certified once."""
    from kernelevolve.certify import Subject, outcome

    for stored in registry.entries(run.spec.target.name, run.spec.hardware.key):
        if stored.entry.provenance.run == run.spec.run and stored.entry.candidate == candidate:
            return stored.entry
    subject = Subject.of(run)
    said = [outcome(candidate, subject, e) for e in evaluations if e.candidate == candidate.digest]
    return next((o for o in said if isinstance(o, Refused)), None)


def search_document(
    result: "SearchResult", ending: Ending, *, waste: Waste | None = None, nothing: NothingWins | None = None
) -> dict[str, object]:
    """What `search --json` prints."""
    best = _best(result.best)
    if best is None or result.best is None:
        found = None
    else:
        low, high = best.interval
        found = {"candidate": result.best.candidate.digest, "speedup": best.speedup, "low": low, "high": high}
    return {
        "run": result.run,
        "target": result.target,
        "hardware": result.hardware_key,
        "evaluated": result.evaluated,
        "failed": result.failed,
        "best": found,
        "baseline": most_frequent_baseline(result.baseline.values()),
        "verdict": ending.verdict,
        "entry": None if ending.entry is None else str(ending.entry),
        "stopped": result.stopped,
        "seconds": result.seconds,
        "nothing_wins": nothing,
        "waste": waste,
    }


def tell(result: "SearchResult", ending: Ending) -> None:
    """Print it."""
    spent = formats.duration(result.seconds)
    counts = f"{result.evaluated} evaluated, {result.failed} failed, stopped by {result.stopped}, {spent}"
    output.text(f"{result.target} on {result.hardware_key}: {counts}")
    if result.stopped in ("usd", "tokens"):
        output.text("its budget isn't sure to last for one more question: resumed, it asks nothing; start a new run")
    best = _best(result.best)
    if best is not None and result.best is not None:
        output.text(f"best: {formats.speedup(best)} over the fastest baseline, {result.best.candidate.label}")
        output.measurements(best.measurements)
    output.text(f"{ending.verdict.replace('_', ' ')}: {ending.message}")
    output.text(f"run: {result.run}")


def _best(parent: Parent | None) -> Passed | None:
    return parent.evaluation if parent and isinstance(parent.evaluation, Passed) else None
