"""The briefs of a run: what a proposer is told of target, parents, history and knowledge at a step."""

import random
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from kernelevolve.diagnosis import bottleneck_of
from kernelevolve.knowledge import Library, Query
from kernelevolve.policies.base import Plan
from kernelevolve.schema import (
    Attempt,
    Bottleneck,
    Brief,
    Document,
    Duplicate,
    Evaluation,
    Failed,
    Parent,
    Passed,
    Proposal,
    RunSpec,
    Seed,
    Triaged,
)

MOST_ATTEMPTS = 16
"""In a brief, whatever the length of the run."""

_ANCESTORS = 8
"""generations that are looked back"""
_BESIDE = 3
"""attempts told of each generation, beside the one that led on"""
_LEADERS = 3
"""of the whole run, told where both siblings and ancestors are"""
_LATEST = 3
"""of the whole run, told beside its leaders: whoever answered wants to know what came of it"""
_PENDING = 4
"""of the same parents, the latest"""
_PASSED, _FAILED, _TUNED = 5, 5, 2
"""Attempts on the same parents that are told: the fastest, the latest failures, and the tuner's fastest, which differ
in nothing but constants."""


_Key = TypeVar("_Key", int, tuple[float, int])


@dataclass
class _Children:
    """What was made of the same parents, sorted, so that the most telling are found without a walk through all."""

    passed: list[tuple[float, int]] = field(default_factory=list)
    """rank (the fastest first) and number of the step"""
    tuned: list[tuple[float, int]] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)

    def most_telling(self) -> Iterator[int]:
        """Numbers of steps: the two fastest, the latest failures, then the rest."""
        fastest = [number for _, number in self.passed[:_PASSED]]
        yield from fastest[:2]
        yield from reversed(self.failed[-_FAILED:])
        yield from fastest[2:]
        yield from (number for _, number in self.tuned[:_TUNED])


@dataclass(frozen=True)
class _Told:
    """A step as it stands."""

    attempt: Attempt
    rank: float
    """lower is better; 0 for a failure"""
    tuned: bool
    confirmed: bool


class Briefing:
    """Writes the briefs of a run. A pure function of what it was told, in whatever order; its cost doesn't grow."""

    def __init__(
        self,
        spec: RunSpec,
        seeds: Sequence[Seed],
        *,
        library: Library | None = None,
        baseline_us: Mapping[str, float] | None = None,
    ) -> None:
        """`library` is where documents come from; without one, or where the run wants none, briefs carry none.

        `baseline_us` are the times of the fastest baselines on the search workloads, microseconds.
        """
        self._spec = spec
        self._library = library if spec.knowledge else None
        self._baseline_us = dict(baseline_us or {})
        own = tuple(seed for seed in seeds if seed.language == spec.language)
        self._seeds = own or tuple(seeds)
        self._told: dict[int, _Told] = {}
        self._children: dict[tuple[str, ...], _Children] = {}
        self._leaders: list[tuple[float, int]] = []
        """rank and number of every step that passed and isn't the tuner's, the fastest first"""
        self._latest: list[int] = []
        """every step that told something and isn't the tuner's, in order"""
        self._pending: dict[int, Attempt] = {}
        """steps that are under way"""
        self._steps: dict[str, int] = {}
        """the first step that proposed a candidate, by its digest"""

    def begin(self, brief: Brief) -> None:
        """Note that a step is under way."""
        parents = tuple(parent.candidate.digest for parent in brief.parents)
        self._pending[brief.step] = Attempt(
            candidate="", change=brief.change, parents=parents, label="", outcome="pending"
        )

    def propose(self, number: int, proposal: Proposal) -> None:
        """Note what is going to be judged at a step."""
        if number in self._pending:
            changes = {"label": proposal.lineage.origin, "idea": proposal.idea}
            self._pending[number] = self._pending[number].model_copy(update=changes)

    def tell(self, number: int, proposal: Proposal, parent: Parent | None, evaluation: Evaluation) -> None:
        """File how step `number` ended; told again, a confirmation counts more than what the search had measured.

        `parent` is the candidate with its evaluation; None where the proposal never became one. What certification
        finds on held-out workloads is not for briefs, and passed over.
        """
        self._pending.pop(number, None)
        before, confirmed = self._told.get(number), evaluation.purpose == "confirm"
        if not _tells_something(proposal, evaluation) or (before and before.confirmed and not confirmed):
            return
        if before is not None:
            self._file(number, before, remove=True)
        told = _Told(_attempt(proposal, parent, evaluation), _rank(evaluation), proposal.model is None, confirmed)
        self._told[number] = told
        self._file(number, told)
        if parent is not None:
            first = self._steps.get(parent.candidate.digest, number)
            self._steps[parent.candidate.digest] = min(first, number)

    def brief(self, number: int, plan: Plan) -> Brief:
        """The brief of step `number`. Raises `UsageError` where the knowledge can't be read."""
        spec, parents = self._spec, plan.parents
        bottleneck = bottleneck_of(parents[0].evaluation) if parents and spec.diagnostics else None
        history = self._history(plan)
        if not spec.diagnostics:
            parents = tuple(Parent(candidate=p.candidate, evaluation=_ending(p.evaluation)) for p in parents)
            history = tuple(_without_findings(attempt) for attempt in history)
        return Brief(
            step=number,
            target=spec.target,
            hardware=spec.hardware,
            language=spec.language,
            change=plan.change,
            parents=parents,
            seeds=self._seeds,
            memory=plan.memory,
            bottleneck=bottleneck,
            history=history,
            documents=self._documents(number, plan, bottleneck),
            baseline_us=self._baseline_us,
        )

    def _file(self, number: int, told: _Told, *, remove: bool = False) -> None:
        children = self._children.setdefault(told.attempt.parents, _Children())
        if not told.tuned:
            _keep(self._latest, number, remove=remove)
        if told.attempt.outcome == "failed":
            _keep(children.failed, number, remove=remove)
        else:
            if not told.tuned:
                _keep(self._leaders, (told.rank, number), remove=remove)
            _keep(children.tuned if told.tuned else children.passed, (told.rank, number), remove=remove)

    def _history(self, plan: Plan) -> tuple[Attempt, ...]:
        """What the plan's memory lets a brief know."""
        if plan.memory == "clean":
            return ()
        parents = tuple(parent.candidate.digest for parent in plan.parents)
        groups: list[Iterator[int]] = []
        if plan.memory in ("siblings", "combine"):
            groups.append(self._of(parents))
            groups += [self._of((parent,)) for parent in parents if len(parents) > 1]
        if plan.memory in ("inherit", "combine"):
            groups.append(self._line(parents))
        if plan.memory == "combine":
            groups.append(number for _, number in self._leaders[:_LEADERS])
            groups.append(reversed(self._latest[-_LATEST:]))
        # One whose idea nobody knows yet is no warning.
        pending = [told for told in self._pending.values() if told.parents == parents and told.idea][-_PENDING:]
        numbers = list(dict.fromkeys(_in_turns(groups)))[: MOST_ATTEMPTS - len(pending)]
        return (*pending, *(self._told[number].attempt for number in numbers))

    def _of(self, parents: tuple[str, ...]) -> Iterator[int]:
        return self._children[parents].most_telling() if parents in self._children else iter(())

    def _line(self, parents: tuple[str, ...]) -> Iterator[int]:
        """The steps that led to these candidates, nearest first, each followed by the best that was made beside it."""
        seen: set[str] = set()
        generation = list(parents)
        for _ in range(_ANCESTORS):
            found = [self._steps[d] for d in generation if d in self._steps and d not in seen]
            seen.update(generation)
            yield from found
            above = list(dict.fromkeys(self._told[number].attempt.parents for number in found))
            for group in above:
                yield from islice(self._of(group), _BESIDE)
            generation = [digest for group in above for digest in group]

    def _documents(self, number: int, plan: Plan, bottleneck: Bottleneck | None) -> tuple[Document, ...]:
        if self._library is None:
            return ()
        spec = self._spec
        # By the step alone: a resumed run, and one that asks in another order, draws the same.
        skills = random.Random(f"{spec.seed}/skills/{number}").random() < spec.skills
        query = Query.of(
            spec.target,
            spec.hardware,
            spec.language,
            bottleneck=bottleneck.name if bottleneck else "unknown",
            change=plan.change,
            skills=skills,
        )
        return self._library.retrieve(query)


def _ending(evaluation: Evaluation) -> Evaluation:
    """How it ended, without what was found."""
    if isinstance(evaluation, Triaged):
        return evaluation.model_copy(update={"diagnostics": (), "estimates": (), "kernels": ()})
    return evaluation.model_copy(update={"diagnostics": ()})


def _without_findings(attempt: Attempt) -> Attempt:
    """What was measured of it stays: estimates are findings."""
    kept = attempt.by_workload_us if attempt.outcome == "passed" else {}
    return attempt.model_copy(update={"finding": "", "by_workload_us": kept})


def _tells_something(proposal: Proposal, evaluation: Evaluation) -> bool:
    """Whether an idea was put to the test: no answer, a duplicate, noise and a certificate say nothing about one."""
    if evaluation.purpose not in ("search", "confirm") or proposal.trouble is not None:
        return False
    if not isinstance(evaluation, Failed):
        return True
    return not evaluation.unsettled and not any(isinstance(d, Duplicate) for d in evaluation.diagnostics)


def _attempt(proposal: Proposal, parent: Parent | None, evaluation: Evaluation) -> Attempt:
    candidate = parent.candidate if parent else None
    finding = ""
    if isinstance(evaluation, Failed):
        first = evaluation.diagnostics[0].message if evaluation.diagnostics else "no finding"
        finding = f"{evaluation.stage}: {first}"
    elif isinstance(evaluation, Triaged) and evaluation.estimated_us is not None:
        finding = f"estimated {evaluation.estimated_us:.4g} us, not measured"
    return Attempt(
        candidate=candidate.digest if candidate else "",
        change=proposal.lineage.change,
        parents=proposal.lineage.parents,
        label=candidate.label if candidate else proposal.lineage.origin,
        idea=proposal.idea,
        outcome=evaluation.outcome,
        speedup=evaluation.speedup if isinstance(evaluation, Passed) else None,
        low=evaluation.interval[0] if isinstance(evaluation, Passed) else None,
        high=evaluation.interval[1] if isinstance(evaluation, Passed) else None,
        by_workload_us=_times(evaluation),
        finding=finding,
    )


def _times(evaluation: Evaluation) -> dict[str, float]:
    if isinstance(evaluation, Passed):
        return {m.workload: m.candidate_us for m in evaluation.measurements}
    return {e.workload: e.estimated_us for e in evaluation.estimates} if isinstance(evaluation, Triaged) else {}


def _rank(evaluation: Evaluation) -> float:
    """What sorts the better first; estimates and measurements are never mixed in a run."""
    if isinstance(evaluation, Passed):
        return -evaluation.fitness
    return evaluation.estimated_us or 0.0 if isinstance(evaluation, Triaged) else 0.0


def _keep(keys: list[_Key], key: _Key, *, remove: bool) -> None:
    """Put a key into a sorted list, or take it out."""
    if remove:
        del keys[bisect_left(keys, key)]
    else:
        insort(keys, key)


def _in_turns(groups: Sequence[Iterator[int]]) -> Iterator[int]:
    """One of each group at a time, until all are used up."""
    left = list(groups)
    while left:
        for group in list(left):
            number = next(group, None)
            if number is None:
                left.remove(group)
            else:
                yield number
