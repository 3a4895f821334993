"""The proposer `model`: language models write kernels, the tuner walks their constants."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from kernelevolve.catalog import LANGUAGES
from kernelevolve.errors import UsageError
from kernelevolve.languages.base import Language
from kernelevolve.llm.bandit import Bandit
from kernelevolve.prompts import Prompts
from kernelevolve.proposers.reading import Kernel, kernel_in
from kernelevolve.proposers.rendering import Complaint, Question, Renderer, TooLong, View
from kernelevolve.proposers.tuner import Tuner, candidate_of
from kernelevolve.resources import prompts_dir
from kernelevolve.schema import (
    Answer,
    Brief,
    Candidate,
    Change,
    Evaluation,
    Failed,
    Lineage,
    ModelInfo,
    ModelRequest,
    Parent,
    Passed,
    Proposal,
    Record,
    Reply,
    Seed,
    Triaged,
    Trouble,
    Usage,
    Value,
)

SOME_USE = 0.25
"""What a model earns for a kernel that is right, and no faster than what was there."""


@dataclass(frozen=True)
class _Written:
    """A kernel of a model's that is being judged."""

    model: str
    cost_usd: float | None


@dataclass
class _Asked:
    """A brief whose question is under way."""

    model: ModelInfo
    dropped: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)


class Model:
    """Asks a language model for each kernel, and the tuner for what needs no model.

    Seeds are tried first, and a share of the later briefs goes to the tuner as long as it has something to walk.
    An answer that can't be used, or holds a kernel that was there before, is followed by one more question.
    """

    name: ClassVar[str] = "model"
    changes: ClassVar[tuple[Change, ...]] = ("rewrite", "diff", "repair", "crossover", "retune")

    class Config(Record):
        """Settings of the proposer `model`."""

        seeds_first: bool = Field(True, description="whether the target's seeds are tried before a model is asked")
        tuning: float = Field(
            0.2, ge=0, le=1, description="share of the briefs that the tuner answers beside retunes; 0: not even those"
        )
        follow_ups: int = Field(1, ge=0, le=1, description="further questions after an answer that can't be used")
        examples: float = Field(0.5, ge=0, le=1, description="share of drafts that show a seed as an example")
        temperature: float | None = Field(None, description="None leaves it to the model's service")
        prompts: Path | None = Field(None, description="folder of the templates; None means the usual places")
        tuner: Tuner.Config = Tuner.Config()
        bandit: Bandit.Config = Bandit.Config()

    def __init__(self, config: Config, *, seed: int, models: tuple[ModelInfo, ...] = ()) -> None:
        if not models:
            raise UsageError(f"the proposer {self.name} needs a model", remedy="name one with --model")
        self._config = config
        self._seed = seed
        self._models = {model.name: model for model in models}
        self._tuner = Tuner(config.tuner, seed=seed)
        self._bandit = Bandit(config.bandit, models, seed=seed)
        self._renderer = Renderer(Prompts(prompts_dir(config.prompts)))
        self._asked: dict[str, _Asked] = {}
        """by the brief's digest"""
        self._kernels: dict[str, str] = {}
        """every kernel that was proposed or told, by its normalised code, with how it ended"""
        self._written: dict[str, _Written] = {}
        """by the candidate's digest"""
        self._fitness: dict[str, float] = {}
        """of every kernel that passed, by the candidate's digest"""
        self._best = 0.0
        self._languages: dict[str, Language] = {}

    def propose(self, brief: Brief) -> Proposal | ModelRequest:
        """What the tuner has for this brief, or a question to a model."""
        tuned = self._tuned(brief)
        if tuned is not None:
            self._note(candidate_of(tuned))
            return tuned.model_copy(update={"proposer": self.name})
        return self._ask(brief)

    def read(self, brief: Brief, request: ModelRequest, answer: Answer) -> Proposal | ModelRequest:
        """The kernel in an answer, or why there is none; one more question where that may mend it."""
        asked = self._asked.setdefault(brief.digest, _Asked(self._models[request.model]))
        asked.usage = _sum(asked.usage, answer.usage)
        found = kernel_in(answer, self._language(brief.language), _base(brief))
        problems = self._problems(brief, found)
        if problems and request.attempt < self._config.follow_ups and isinstance(answer, Reply):
            again = self._question(brief, asked.model, Complaint(answer.text, problems))
            if isinstance(again, Question):
                asked.dropped = again.dropped
                return again.request
        del self._asked[brief.digest]
        proposal = self._proposal(brief, request, answer, found, asked)
        candidate = candidate_of(proposal)
        if isinstance(found, Trouble) or problems:  # no kernel, or none that will be judged
            self._bandit.tell(asked.model.name, 0.0, asked.usage.cost_usd)
        else:
            self._note(candidate)
            self._written[candidate.digest] = _Written(asked.model.name, asked.usage.cost_usd)
        return proposal

    def recall(self, brief: Brief, proposal: Proposal) -> None:
        """Note what was proposed without a question in an earlier sitting."""
        self._note(candidate_of(proposal))

    def tell(self, outcome: Parent) -> None:
        """Learn how a candidate ended, whoever wrote it."""
        candidate, said = outcome.candidate, outcome.evaluation
        if said.purpose not in ("search", "confirm"):
            return
        self._tuner.tell(outcome)
        self._kernels[candidate.normal] = _ending(outcome)
        if written := self._written.pop(candidate.digest, None):
            self._bandit.tell(written.model, self._reward(outcome), written.cost_usd)
        if (rank := _rank(said)) is not None:
            self._fitness[candidate.digest] = rank
            self._best = max(self._best, rank)

    def _tuned(self, brief: Brief) -> Proposal | None:
        """What needs no model: an untried seed, a retune that was asked for, and a share of the other briefs."""
        if brief.change == "retune":
            return self._tuner.retuned(brief) if self._config.tuning > 0 else None
        if brief.change == "draft" and self._config.seeds_first and (seed := self._tuner.untried(brief)):
            return seed
        if self._draw("tuning", brief) >= self._config.tuning:
            return None
        if brief.change == "draft":
            return self._tuner.walked(brief)
        usable = brief.parents and not isinstance(brief.parents[0].evaluation, Failed)
        return self._tuner.retuned(brief) if usable and brief.change in ("rewrite", "diff") else None

    def _reward(self, outcome: Parent) -> float:
        """1 for what beats its parents, or as a draft everything before it; something for any kernel that is right."""
        if isinstance(outcome.evaluation, Failed):
            return 0.0
        parents = outcome.candidate.lineage.parents
        known = [self._fitness[digest] for digest in parents if digest in self._fitness]
        bar = max(known, default=0.0) if parents else self._best
        rank = _rank(outcome.evaluation)
        return 1.0 if rank is not None and rank > bar else SOME_USE

    def _ask(self, brief: Brief) -> ModelRequest:
        """The question to the model whose turn it is or, where it has no room for it, to the one that has most.

        Raises `UsageError` where that has none either.
        """
        chosen = self._models[self._bandit.choose(brief.step)]
        roomiest = max(self._models.values(), key=lambda model: model.context_tokens - model.output_tokens)
        for model in (chosen, roomiest):
            question = self._question(brief, model)
            if isinstance(question, Question):
                self._asked[brief.digest] = _Asked(model, question.dropped)
                return question.request
        assert isinstance(question, TooLong)
        raise UsageError(
            f"model {roomiest.name} has room for a prompt of {question.room} tokens, and this task needs about "
            f"{question.needed}",
            remedy="choose a model with a larger context, or correct the context_tokens of this one",
        )

    def _question(self, brief: Brief, model: ModelInfo, complaint: Complaint | None = None) -> Question | TooLong:
        view = View.of(brief, self._language(brief.language).suffixes[0], self._example(brief),
                       tuned=self._config.tuning > 0)  # fmt: skip
        return self._renderer.question(
            brief, view, model, temperature=self._config.temperature, complaint=complaint
        )  # fmt: skip

    def _example(self, brief: Brief) -> Seed | None:
        """For a share of the drafts one of the seeds: the form is shown, and most drafts stay free of its ideas."""
        seeds = [seed for seed in brief.seeds if seed.language == brief.language]
        if brief.change != "draft" or not seeds or self._draw("example", brief) >= self._config.examples:
            return None
        return seeds[int(self._draw("seed", brief) * len(seeds))]

    def _draw(self, what: str, brief: Brief) -> float:
        """A number from 0 to 1 that depends on the run's seed and the step alone."""
        return random.Random(f"{self._seed}/{what}/{brief.step}").random()

    def _problems(self, brief: Brief, found: Kernel | Trouble) -> tuple[str, ...]:
        """What another answer could do better; empty for a kernel that can be built, and for trouble it can't mend."""
        if isinstance(found, Trouble):
            return (found.detail,) if found.reason in ("malformed_edit", "prose") else ()
        language = self._language(brief.language)
        findings = language.admit(found.files)
        if findings:
            return tuple(f"{finding.message}: {finding.advice}" for finding in findings)
        known = self._kernels.get(self._candidate(brief, found).normal)
        return () if known is None else (f"this kernel was there before ({known}): write one that differs",)

    def _candidate(self, brief: Brief, kernel: Kernel) -> Candidate:
        return Candidate(
            language=brief.language, files=kernel.files, tunables=self._chosen(brief, kernel), lineage=Lineage()
        )  # fmt: skip

    def _chosen(self, brief: Brief, kernel: Kernel) -> dict[str, Value]:
        """Every declared tunable at its default: what its author has in mind.

        In an edit of the first parent, one that is declared as it was there keeps its value: nobody has touched it.
        """
        language = self._language(brief.language)
        declared = language.tunables(kernel.files)
        parent = brief.parents[0].candidate if brief.parents else None
        before = language.tunables(parent.files) if parent and parent.language == brief.language else {}
        kept = parent.tunables if parent and kernel.edited else {}
        return {
            name: kept[name] if name in kept and before.get(name) == values else values[0]
            for name, values in declared.items()
        }

    def _proposal(
        self, brief: Brief, request: ModelRequest, answer: Answer, found: Kernel | Trouble, asked: _Asked
    ) -> Proposal:
        kernel = found if isinstance(found, Kernel) else None
        admitted = kernel is not None and not self._language(brief.language).admit(kernel.files)
        return Proposal(
            proposer=self.name,
            brief=brief.digest,
            language=brief.language,
            files=kernel.files if kernel else {},
            tunables=self._chosen(brief, kernel) if kernel and admitted else {},
            lineage=Lineage(
                change=_made_by(brief, kernel),
                parents=() if brief.change == "draft" else tuple(p.candidate.digest for p in brief.parents),
                origin=f"{asked.model.name}#{brief.step}",
            ),
            idea=kernel.idea if kernel else "",
            answer=answer.text if isinstance(answer, Reply) else "",
            model=asked.model.name,
            prompt_digest=request.digest,
            dropped=asked.dropped,
            usage=asked.usage,
            trouble=found if isinstance(found, Trouble) else None,
        )

    def _note(self, candidate: Candidate) -> None:
        """Remember a kernel that is about to be judged."""
        self._kernels.setdefault(candidate.normal, "it is under way")
        self._tuner.expect(candidate)

    def _language(self, name: str) -> Language:
        if name not in self._languages:
            self._languages[name] = LANGUAGES.load(name)()
        return self._languages[name]


def _base(brief: Brief) -> Mapping[str, str] | None:
    """The files that search/replace blocks are about."""
    return brief.parents[0].candidate.files if len(brief.parents) == 1 else None


def _made_by(brief: Brief, kernel: Kernel | None) -> Change:
    """The kind of change that was made, where a model answers a rewrite with blocks or a diff with whole files."""
    if kernel is None or brief.change not in ("rewrite", "diff"):
        return brief.change
    return "diff" if kernel.edited else "rewrite"


def _rank(evaluation: Evaluation) -> float | None:
    """What orders kernels, higher is better: fitness or, where nothing is measured, the estimated rate."""
    if isinstance(evaluation, Passed):
        return evaluation.fitness
    return evaluation.estimated_rate if isinstance(evaluation, Triaged) else None


def _ending(outcome: Parent) -> str:
    """How a kernel ended, in a few words."""
    said = outcome.evaluation
    if isinstance(said, Passed):
        return f"{said.speedup:.3f} times as fast as the baseline"
    return f"it failed at the stage {said.stage}" if isinstance(said, Failed) else "it was not timed"


def _sum(one: Usage, other: Usage) -> Usage:
    costs = (one.cost_usd, other.cost_usd)
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
    )
