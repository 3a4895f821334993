"""The proposer `tuner`: walks the target's seeds and their tunables, without a language model."""

import itertools
import logging
import random
from typing import ClassVar

import optuna
from pydantic import Field

from kernelevolve.catalog import LANGUAGES
from kernelevolve.languages.base import Language
from kernelevolve.proposers.family import Family, Member
from kernelevolve.proposers.study import suggestions
from kernelevolve.schema import (
    Brief,
    Candidate,
    Change,
    Lineage,
    ModelInfo,
    Parent,
    Proposal,
    Record,
)

logger = logging.getLogger(__name__)


class Tuner:
    """Proposes every seed at its default values, then new members of the families that do best.

    Everything it says follows from its seed and from what it was told and has proposed: a tuner that is told
    the finished steps of an interrupted run goes on where the first one stopped.
    """

    name: ClassVar[str] = "tuner"
    changes: ClassVar[tuple[Change, ...]] = ("retune",)
    asks: ClassVar[bool] = False

    class Config(Record):
        """Settings of the tuner."""

        startup: int = Field(8, ge=1, description="outcomes of a family before the sampler learns from them")
        attempts: int = Field(24, ge=0, description="draws from the sampler for a new member")

    def __init__(self, config: Config, *, seed: int, models: tuple[ModelInfo, ...] = ()) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config = config
        self._seed = seed
        self._families: dict[str, Family] = {}
        self._left_out: set[str] = set()
        """families of seeds that their language doesn't admit"""
        self._languages: dict[str, Language] = {}

    def propose(self, brief: Brief) -> Proposal | None:
        """A seed that wasn't tried, or a new member of a family; None when no family has one left.

        A retune stays in the family of the brief's first parent, unless that is used up.
        """
        return (self.retuned(brief) if brief.change == "retune" else None) or self.untried(brief) or self.walked(brief)

    def retuned(self, brief: Brief) -> Proposal | None:
        """A new member of the family of the brief's first parent; None where there is none."""
        if not brief.parents:
            return None
        parent = brief.parents[0].candidate
        family = self._family(parent)
        if family.exhausted:
            return None
        lineage = Lineage(change="retune", parents=(parent.digest,), origin=family.origin)
        return self._proposal(brief, family, self._choose(family, self._rng()), lineage)

    def untried(self, brief: Brief) -> Proposal | None:
        """The first of the brief's seeds that wasn't tried, at its default values; None where all were."""
        for family in self._seeds(brief):
            if not family.tried:
                return self._proposal(brief, family, family.default, Lineage(origin=family.origin))
        return None

    def walked(self, brief: Brief) -> Proposal | None:
        """A new member of a family that does well, the better the more likely; None where no family has one left."""
        eligible = self._eligible(brief.language, self._seeds(brief))
        if not eligible:
            return None
        rng = self._rng()
        family = rng.choices(eligible, weights=[1 / rank for rank in range(1, len(eligible) + 1)])[0]
        return self._proposal(brief, family, self._choose(family, rng), Lineage(origin=family.origin))

    def expect(self, candidate: Candidate) -> None:
        """Note that somebody else has proposed a kernel: it is under way, and need not be proposed again."""
        family = self._family(candidate)
        member = family.member(candidate.tunables)
        if family.is_open(member):
            family.pending[member] = None

    def recall(self, brief: Brief, proposal: Proposal) -> None:
        """Note that a member of a family was proposed in an earlier sitting."""
        self.expect(candidate_of(proposal))

    def tell(self, outcome: Parent) -> None:
        """Learn how a candidate ended, whoever wrote it."""
        if outcome.evaluation.purpose in ("search", "confirm"):
            family = self._family(outcome.candidate)
            family.record(family.member(outcome.candidate.tunables), outcome.evaluation)

    def _rng(self) -> random.Random:
        """Random numbers for the next choice, which depend on how many members are known."""
        return random.Random(f"{self._seed}/{sum(f.tried for f in self._families.values())}")

    def _seeds(self, brief: Brief) -> list[Family]:
        """Families of the brief's seeds that are kernels of its language, in the order of the target."""
        found: dict[str, Family] = {}
        for seed in brief.seeds:
            candidate = Candidate(language=seed.language, files=seed.files, lineage=Lineage(origin=seed.name))
            if seed.language == brief.language and self._admits(seed.name, candidate):
                found[candidate.family] = self._family(candidate)
        return list(found.values())

    def _admits(self, name: str, candidate: Candidate) -> bool:
        """Whether a seed is a kernel; the first time that it isn't, the log says so."""
        key = candidate.family
        if key in self._families or key in self._left_out:
            return key in self._families
        problems = self._language(candidate.language).admit(candidate.files, candidate.entry)
        if problems:
            self._left_out.add(key)
            logger.warning("seed %s is left out: %s (%s)", name, problems[0].message, problems[0].advice)
        return not problems

    def _family(self, candidate: Candidate) -> Family:
        """The candidate's family, which becomes known if it wasn't."""
        key = candidate.family
        if key not in self._families:
            space = self._language(candidate.language).tunables(candidate.files)
            self._families[key] = Family(candidate, space, candidate.lineage.origin)
        return self._families[key]

    def _language(self, name: str) -> Language:
        if name not in self._languages:
            self._languages[name] = LANGUAGES.load(name)()
        return self._languages[name]

    def _eligible(self, language: str, seeds: list[Family]) -> list[Family]:
        """Families to draw a draft from, the one with the best member first, those without a pass last.

        One that isn't a seed counts from its first pass on; a family that passed is never retired.
        """
        found = [
            family
            for family in self._families.values()
            if family.sources.language == language and (family in seeds or family.usable)
            if not family.retired and not family.exhausted
        ]  # fmt: skip
        return sorted(found, key=lambda family: (-(family.best or 0.0), family.sources.family))

    def _choose(self, family: Family, rng: random.Random) -> Member:
        """An open member: the sampler's choice or, where it keeps naming used ones, any."""
        sampled = suggestions(family, startup=self._config.startup, seed=rng.getrandbits(32))
        for member in itertools.islice(sampled, self._config.attempts):
            if family.is_open(member):
                return member
        return family.draw(rng)

    def _proposal(self, brief: Brief, family: Family, member: Member, lineage: Lineage) -> Proposal:
        family.pending[member] = None
        return Proposal(
            proposer=self.name,
            brief=brief.digest,
            language=family.sources.language,
            files=family.sources.files,
            tunables=family.tunables(member),
            lineage=lineage,
        )


def candidate_of(proposal: Proposal) -> Candidate:
    """What a proposal becomes once its language admits it."""
    return Candidate(
        language=proposal.language, files=proposal.files, tunables=proposal.tunables, lineage=proposal.lineage
    )
