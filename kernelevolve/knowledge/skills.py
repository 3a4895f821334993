"""Skills: what measured searches of one operation on one machine showed, with the evidence."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import Field

from kernelevolve.diagnosis import bottleneck_of
from kernelevolve.schema import (
    Candidate,
    Change,
    Cheat,
    Diagnostic,
    Duplicate,
    Evaluation,
    Failed,
    Hardware,
    NoKernel,
    ParseError,
    Passed,
    Record,
    Run,
    Stage,
    Step,
    Unsettled,
)

MOST_LESSONS = 12
"""Of each sort, for one operation on one machine: a skill is read whole, so it must stay short."""
MOST_EVIDENCE = 8
"""Kept for each lesson, the strongest first."""

_IDEA_CHARACTERS, _MESSAGE_CHARACTERS = 280, 240


class Gain(Record):
    """A child that was faster than its parent for certain. Speed-ups are over the fastest baseline."""

    run: str
    child: str = Field(description="digest of the candidate")
    parent: str = Field(description="digest of the best of its parents")
    parent_low: float
    parent_high: float
    child_low: float
    child_high: float
    confidence: float = Field(description="coverage of the measurements behind the intervals, 0 to 1")

    @property
    def at_least(self) -> float:
        """How many times as fast the child is, even if both intervals lie at their worst ends."""
        return self.child_low / self.parent_high


class Help(Record):
    """A change that helped against a bottleneck."""

    change: Change
    bottleneck: str
    idea: str = Field(description="what was changed, in the proposer's words or as tunables")
    evidence: tuple[Gain, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two of them the same lesson."""
        return (self.bottleneck, self.change, " ".join(self.idea.lower().split()))


class Sighting(Record):
    """A candidate that failed."""

    run: str
    candidate: str = Field(description="digest; empty where the answer never became a candidate")


class Fault(Record):
    """A failure, what it came from, and what mended it."""

    stage: Stage
    bottleneck: str = Field(description="what a brief calls it: compile, correctness, limits, ...")
    kind: str = Field(description="of the diagnostic")
    message: str
    advice: str
    idea: str = Field("", description="what the first candidate that failed so had changed; empty where nobody said")
    mended: str = Field("", description="what the change was that made such a candidate pass; empty where none did")
    evidence: tuple[Sighting, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two of them the same lesson."""
        return (self.stage, self.kind, _normal(self.message))


_Evidence = TypeVar("_Evidence", Gain, Sighting)
_Lesson = TypeVar("_Lesson", Help, Fault)


class Skill(Record):
    """Everything that was learned of an operation on a machine in a language."""

    target: str = Field(description="name")
    summary: str
    hardware: Hardware = Field(description="without its ceilings and toolchain: as far as retrieval needs it")
    language: str
    helps: tuple[Help, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def slug(self) -> str:
        """The name of its file, without a suffix."""
        return re.sub(r"[^\w.-]+", "-", f"{self.target}-{self.language}-{self.hardware.key}")

    @property
    def runs(self) -> tuple[str, ...]:
        """Every run behind it, sorted."""
        lessons: tuple[Help | Fault, ...] = (*self.helps, *self.faults)
        return tuple(sorted({evidence.run for lesson in lessons for evidence in lesson.evidence}))


@dataclass(frozen=True)
class _Told:
    """A step with the candidate and what counts of its evaluations."""

    step: Step
    candidate: Candidate
    evaluation: Evaluation


def distil(run: Run) -> Skill | None:
    """What a run learned; None where nothing is settled.

    A change counts as a help where the whole interval of the child lies above that of every parent; a confirmation
    replaces what the search had measured.
    """
    told = [
        _Told(step, step.candidate, verdict)
        for step in run.steps
        if step.candidate is not None and (verdict := _verdict(step)) is not None
    ]
    known: dict[str, _Told] = {}
    for each in told:
        known.setdefault(each.candidate.digest, each)
    helps = tuple(_helps(run.spec.run, told, known))
    faults = tuple(_faults(run, known))
    if not helps and not faults:
        return None
    spec = run.spec
    machine = spec.hardware.model_copy(update={"ceilings": None, "toolchain": {}, "driver": None})
    empty = Skill(target=spec.target.name, summary=spec.target.summary, hardware=machine, language=spec.language)
    return merged(empty, empty.model_copy(update={"helps": helps, "faults": faults}))


def merged(old: Skill, new: Skill) -> Skill:
    """Both together, lessons of equal keys as one, the least telling left out.

    What the old one had from the new one's runs is forgotten first: learning from a run twice is learning once.
    """
    again = set(new.runs)
    kept_helps = (h.model_copy(update={"evidence": e}) for h in old.helps if (e := _others(h.evidence, again)))
    kept_faults = (f.model_copy(update={"evidence": s}) for f in old.faults if (s := _others(f.evidence, again)))
    helps = sorted(
        (_one_help(group) for group in _by_key((*kept_helps, *new.helps))),
        key=lambda h: (-h.evidence[0].at_least, h.key),
    )
    faults = sorted(
        (_one_fault(group) for group in _by_key((*kept_faults, *new.faults))),
        key=lambda f: (-len(f.evidence), not f.mended, f.key),
    )
    update = {"helps": tuple(helps[:MOST_LESSONS]), "faults": tuple(faults[:MOST_LESSONS])}
    return new.model_copy(update=update)


def _verdict(step: Step) -> Evaluation | None:
    """What counts for a step: the last confirmation, else the first evaluation."""
    return step.confirmations[-1] if step.confirmations else step.evaluation


def _helps(run: str, told: list[_Told], known: Mapping[str, _Told]) -> Iterator[Help]:
    for child in told:
        parents = [known[p] for p in child.candidate.lineage.parents if p in known]
        passed = child.evaluation
        if not parents or len(parents) < len(child.candidate.lineage.parents) or not isinstance(passed, Passed):
            continue
        measured = [(p, p.evaluation) for p in parents if isinstance(p.evaluation, Passed)]
        if len(measured) < len(parents) or not all(passed.beats(evaluation) for _, evaluation in measured):
            continue
        best, before = max(measured, key=lambda pair: pair[1].fitness)
        yield Help(
            change=child.candidate.lineage.change,
            bottleneck=bottleneck_of(before).name,
            idea=_plain(child.step.proposal.idea, _IDEA_CHARACTERS) or _retuned(best.candidate, child.candidate),
            evidence=(_gain(run, child.candidate.digest, passed, best.candidate.digest, before),),
        )


def _gain(run: str, child: str, passed: Passed, parent: str, before: Passed) -> Gain:
    (child_low, child_high), (parent_low, parent_high) = passed.interval, before.interval
    return Gain(
        run=run, child=child, parent=parent, child_low=child_low, child_high=child_high, parent_low=parent_low,
        parent_high=parent_high, confidence=min(m.confidence for m in (*passed.measurements, *before.measurements)),
    )  # fmt: skip


def _faults(run: Run, known: Mapping[str, _Told]) -> Iterator[Fault]:
    mended = {
        parent: _plain(each.step.proposal.idea, _IDEA_CHARACTERS)
        for each in known.values()
        if each.candidate.lineage.change == "repair" and isinstance(each.evaluation, Passed)
        for parent in each.candidate.lineage.parents
    }
    for step in run.steps:
        failed = _verdict(step)
        finding = _telling(failed.diagnostics) if isinstance(failed, Failed) else None
        if not isinstance(failed, Failed) or finding is None:
            continue
        digest = step.candidate.digest if step.candidate else ""
        yield Fault(
            stage=failed.stage,
            bottleneck=bottleneck_of(failed).name,
            kind=finding.kind,
            message=_plain(finding.message, _MESSAGE_CHARACTERS),
            advice=_plain(finding.advice, _MESSAGE_CHARACTERS),
            idea=_plain(step.proposal.idea, _IDEA_CHARACTERS),
            mended=mended.get(digest, "") if digest else "",
            evidence=(Sighting(run=run.spec.run, candidate=digest),),
        )


def _telling(diagnostics: Iterable[Diagnostic]) -> Diagnostic | None:
    """The first finding about a kernel. What misled the judge is nobody's lesson, and noise teaches nothing."""
    silent = (Cheat, Duplicate, NoKernel, Unsettled, ParseError)
    return next((d for d in diagnostics if not isinstance(d, silent)), None)


def _retuned(parent: Candidate, child: Candidate) -> str:
    """The tunables that differ: a tuner has no words for what it does."""
    changed = [
        f"{name} {parent.tunables[name]} to {value}"
        for name, value in child.tunables.items()
        if name in parent.tunables and parent.tunables[name] != value
    ]
    origin = child.lineage.origin or "a kernel without a name"
    return f"{origin}: {', '.join(changed)}" if changed else f"{origin}: nobody said what was changed"


def _others(evidence: tuple[_Evidence, ...], runs: set[str]) -> tuple[_Evidence, ...]:
    return tuple(e for e in evidence if e.run not in runs)


def _by_key(lessons: Iterable[_Lesson]) -> list[list[_Lesson]]:
    groups: dict[tuple[str, ...], list[_Lesson]] = {}
    for lesson in lessons:
        groups.setdefault(lesson.key, []).append(lesson)
    return list(groups.values())


def _one_help(group: list[Help]) -> Help:
    evidence = {(e.run, e.child): e for lesson in group for e in lesson.evidence}
    strongest = sorted(evidence.values(), key=lambda e: (-e.at_least, e.run, e.child))
    return group[0].model_copy(update={"evidence": tuple(strongest[:MOST_EVIDENCE])})


def _one_fault(group: list[Fault]) -> Fault:
    evidence = dict.fromkeys(e for lesson in group for e in lesson.evidence)
    mended = next((lesson.mended for lesson in group if lesson.mended), "")
    return group[0].model_copy(update={"evidence": tuple(evidence)[:MOST_EVIDENCE], "mended": mended})


def _plain(text: str, most: int) -> str:
    """One line of plain text: what a model wrote comes back in later prompts, and must not pass for their parts."""
    line = " ".join(re.sub(r"[`|<>#*\[\]{}]+", " ", text).split())
    return line if len(line) <= most else f"{line[: most - 3].rstrip()}..."


def _normal(text: str) -> str:
    """A message without what differs from case to case: numbers, addresses, quotes."""
    return re.sub(r"0x[0-9a-f]+|[\d.]+|['\"\u2018\u2019]", "", text.lower()).strip()
