"""What a run amounts to: pure functions of its record."""

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kernelevolve.cli import formats
from kernelevolve.policies.stopping import Levers
from kernelevolve.rest import surest, width
from kernelevolve.schema import (
    Candidate,
    Diagnostic,
    Entry,
    Evaluation,
    Failed,
    Measurement,
    Parent,
    Passed,
    Refused,
    Run,
    RunSpec,
    Step,
    Triaged,
)
from kernelevolve.schema.nowin import Lever, NothingWins
from kernelevolve.standing import WIDE


@dataclass(frozen=True)
class Best:
    """The best candidate of a run, or of its beginning."""

    step: int
    candidate: Candidate
    passed: Passed
    confirmed: bool
    """measured a second time, in fresh processes; `passed` is that second look"""


@dataclass(frozen=True)
class FailureGroup:
    """Failures of one stage and kind."""

    stage: str
    kind: str
    count: int
    example: Diagnostic


@dataclass(frozen=True)
class Certification:
    """How a run ended: with an entry, with a refusal, or without either."""

    verdict: Literal["certified", "refused", "none"]
    message: str = ""
    measurements: tuple[Measurement, ...] = ()

    @classmethod
    def of(cls, outcome: Entry | Refused | None) -> "Certification":
        """Out of what certification left behind."""
        if isinstance(outcome, Entry):
            return cls("certified", f"entry {outcome.digest}", outcome.evidence)
        if isinstance(outcome, Refused):
            measured = outcome.evaluation.measurements if isinstance(outcome.evaluation, Passed) else ()
            return cls("refused", outcome.message, measured)
        return cls("none")


def verdict_on(step: Step) -> Evaluation | None:
    """What counts for a step: the last confirmation, else the first evaluation."""
    return step.confirmations[-1] if step.confirmations else step.evaluation


def best_of(steps: Iterable[Step]) -> Best | None:
    """The first confirmed candidate that no later one beat; without any, the fittest; None where nothing passed.

    One whose interval stayed wide, however often it was looked at, gives way to one of a higher lower end, as it does
    in the search.
    """
    best: Best | None = None
    for step in steps:
        passed = surest_look(step)
        if step.candidate is None or not isinstance(passed, Passed):
            continue
        found = Best(step.number, step.candidate, passed, bool(step.confirmations))
        if best is None or found.confirmed > best.confirmed:
            best = found
        elif found.confirmed == best.confirmed:
            certain = found.confirmed and width(best.passed) <= WIDE
            better = passed.beats(best.passed) if certain else passed.fitness > best.passed.fitness
            best = found if better else best
    return best


def surest_look(step: Step) -> Evaluation | None:
    """The surest look of several that it passed, else what counts for the step."""
    looks = [look for look in step.confirmations if isinstance(look, Passed)]
    return surest(looks) if len(looks) == len(step.confirmations) > 0 else verdict_on(step)


def finished(run: Run) -> tuple[Step, ...]:
    """The steps that were evaluated, in the order of their numbers."""
    return tuple(step for step in run.steps if step.evaluation is not None)


def triaged(run: Run) -> tuple[Triaged, ...]:
    """What was looked at without its device and not found wanting."""
    return tuple(step.evaluation for step in run.steps if isinstance(step.evaluation, Triaged))


def history(run: Run) -> tuple[Best | None, ...]:
    """The best so far after each finished evaluation."""
    steps = finished(run)
    return tuple(best_of(steps[: count + 1]) for count in range(len(steps)))


@dataclass(frozen=True)
class Mark:
    """A run after so many finished evaluations."""

    evaluations: int
    answered: int
    """of these, by a model or an agent; the others are the tuner's"""
    best: Best | None


_MARKS = (1, 2, 5, 10, 20, 50)


def marks(runs: Iterable[Run]) -> tuple[int, ...]:
    """Numbers of evaluations at which runs are compared, up to where the longest has ended."""
    ends = sorted({len(finished(run)) for run in runs} - {0})
    rising = (step * 100**power for power in range(4) for step in _MARKS)
    return tuple(sorted({n for n in rising if ends and n < ends[-1]} | set(ends)))


def at(run: Run, evaluations: Iterable[int]) -> tuple[Mark, ...]:
    """The run at each of these numbers of evaluations that it reached."""
    steps = finished(run)
    return tuple(
        Mark(n, sum(step.proposal.model is not None for step in steps[:n]), best_of(steps[:n]))
        for n in evaluations
        if n <= len(steps)
    )


def failures(run: Run) -> tuple[FailureGroup, ...]:
    """Failed evaluations by stage and kind of the first finding, the most frequent first."""
    found = [e for e in map(verdict_on, run.steps) if isinstance(e, Failed) and e.diagnostics]
    examples = {(e.stage, e.diagnostics[0].kind): e.diagnostics[0] for e in reversed(found)}
    counts = Counter((e.stage, e.diagnostics[0].kind) for e in found)
    return tuple(FailureGroup(*key, count, examples[key]) for key, count in counts.most_common())


def nothing_wins(run: Run) -> NothingWins | None:
    """That nothing wins, with the evidence; None where something does, or nothing was measured by intention."""
    steps = finished(run)
    if not steps or run.spec.executor == "triage":
        return None
    levers = Levers()
    for step in steps:
        if step.candidate is not None and step.evaluation is not None:
            levers.tell(Parent(candidate=step.candidate, evaluation=step.evaluation))
    best = best_of(run.steps)
    return levers.verdict(best.passed if best and best.confirmed else None)


def evidence(nothing: NothingWins) -> tuple[str, ...]:
    """Why nothing wins, in lines."""
    lines = [f"tried: {nothing.evaluated} candidates, of which {nothing.passed} were right"]
    lines += [f"  {_lever(lever)}" for lever in nothing.levers[:8]]
    if len(nothing.levers) > 8:
        lines.append(f"  and {len(nothing.levers) - 8} more")
    if nothing.best_speedup is not None and nothing.low is not None and nothing.high is not None:
        where = formats.interval(nothing.low, nothing.high)
        lines.append(f"the best reaches {formats.times(nothing.best_speedup)} {where} of the fastest baselines")
    if nothing.headroom is not None:
        share = formats.share(nothing.baseline_roofline_share)
        lines.append(
            f"the baselines are at {share} of the roofline: {formats.times(nothing.headroom)} would be the most"
        )
    return tuple(lines)


def _lever(lever: Lever) -> str:
    best = "none right" if lever.best_speedup is None else f"the best {formats.times(lever.best_speedup)}"
    return f"{lever.origin or 'a draft'}, {lever.change}: {lever.tried} tried, {lever.passed} right, {best}"


def ancestor(run: Run, candidate: Candidate) -> Candidate:
    """The first candidate of the line that led to this one."""
    known = {step.candidate.digest: step.candidate for step in run.steps if step.candidate is not None}
    seen = {candidate.digest}
    while candidate.lineage.parents and (parent := known.get(candidate.lineage.parents[0])):
        if parent.digest in seen:
            break
        seen.add(parent.digest)
        candidate = parent
    return candidate


def most_frequent_baseline(baselines: Iterable[str]) -> str:
    """The baseline that is the fastest on most workloads; the first of equals."""
    counts = Counter(baselines)
    return counts.most_common(1)[0][0] if counts else ""


def command_again(spec: RunSpec) -> str:
    """The command line that repeats a run."""
    words = ["kernelevolve", "search", spec.target.name, "--evals", str(spec.evals), "--seed", str(spec.seed)]
    if spec.minutes is not None:
        words += ["--minutes", f"{spec.minutes:g}"]
    words += ["--language", spec.language, "--proposer", spec.proposer, "--policy", spec.policy]
    words += ["--workers", str(spec.workers), "--threads", str(spec.threads), "--hardware", spec.hardware.key]
    words += _asking(spec) + _ending_early(spec)
    return shlex.join([*words, "--triage"] if spec.executor == "triage" else words)


def _asking(spec: RunSpec) -> list[str]:
    words: list[str] = []
    for model in spec.models if spec.proposer != "agent" else ():
        words += ["--model", f"{model.protocol}:{model.name}" + (f"@{model.base_url}" if model.base_url else "")]
    if spec.models:
        words += ["--lanes", str(spec.lanes), "--skills", f"{spec.skills:g}"]
    if spec.tuning is not None:
        words += ["--tuning", f"{spec.tuning:g}"]
    left_out = {"--no-knowledge": spec.knowledge, "--no-diagnostics": spec.diagnostics}
    return words + [word for word, given in left_out.items() if not given]


def _ending_early(spec: RunSpec) -> list[str]:
    given = {
        "--usd": spec.budgets.usd, "--tokens": spec.budgets.tokens, "--device-seconds": spec.budgets.device_seconds,
        "--target-speedup": spec.stop.speedup, "--target-roofline": spec.stop.roofline, "--stall": spec.stop.stall,
    }  # fmt: skip
    return [word for option, value in given.items() if value is not None for word in (option, f"{value:g}")]


def certification_of(run: Run, evaluations: Iterable[Evaluation], entries: Iterable[Entry]) -> Certification:
    """How a run ended, out of what the store (`evaluations` for certification) and a registry hold."""
    for entry in entries:
        if entry.provenance.run == run.spec.run:
            return Certification.of(entry)
    for event in reversed(run.events):
        if event.kind in ("certified", "refused"):
            measured = [e.measurements for e in evaluations if isinstance(e, Passed)]
            verdict: Literal["certified", "refused"] = "certified" if event.kind == "certified" else "refused"
            return Certification(verdict, event.detail, measured[-1] if measured else ())
    return Certification("none")
