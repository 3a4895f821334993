"""The policy `adaptive`: exploits while that pays, and explores as far as it doesn't."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, TypeVar

from pydantic import Field

from kernelevolve.policies.base import Plan
from kernelevolve.policies.elites import Elite
from kernelevolve.policies.niches import Arm, Niches, Peak, promise
from kernelevolve.policies.population import Population
from kernelevolve.policies.structure import Structures
from kernelevolve.policies.turns import Turns
from kernelevolve.schema import Change, Failed, Parent, Record

_Arm = TypeVar("_Arm", bound=Arm)


class Adaptive:
    """Keeps niches of kernels alike in structure, and in each the peaks among its numbers.

    The leading one goes on as long as it gains. The less it does, the more of the budget goes to the others, by an
    upper confidence bound of where each may get to; by the same rule among niches, and among the peaks of one.
    """

    name: ClassVar[str] = "adaptive"

    class Config(Record):
        """Settings of the policy `adaptive`."""

        drafts: int = Field(4, ge=1, description="drafts at the start, so that every seed gets its chance")
        cold: float = Field(0.05, gt=0, le=1, description="share of the later asks that are drafts; never zero")
        memory: float = Field(20.0, ge=1, description="changes over which the pace of a niche or peak is averaged")
        worthwhile: float = Field(0.05, gt=0, description="gain over so many changes that deserves the full attention")
        lead: float = Field(1.0, ge=0, le=1, description="share of the leading niche or peak while it gains that")
        lead_stalled: float = Field(0.1, ge=0, le=1, description="the same, once it gains nothing any more")
        horizon: float = Field(10.0, ge=0, description="changes for which the pace of another is expected to last")
        niche_curiosity: float = Field(1.0, ge=0, description="weight of having tried a niche little")
        peak_curiosity: float = Field(0.1, ge=0, description="weight of having tried a peak little")
        apart: float = Field(0.5, gt=0, le=1, description="structural distance of niches, 0 to 1")
        reach: float = Field(4.0, gt=0, description="radius of a peak, in usual steps")
        overuse: float = Field(0.002, gt=0, description="taken off a parent for every e-fold of children")

    def __init__(self, config: Config, *, seed: int, changes: tuple[Change, ...]) -> None:
        self._config = config
        self._turns = Turns(seed)
        self._population = Population(changes)
        self._structures = Structures()
        self._niches = Niches(apart=config.apart, reach=config.reach, memory=config.memory)

    def ask(self) -> Plan:
        """A change to a candidate of a promising peak, a draft, or a repair."""
        turn, rng = self._turns.take()
        return self._population.ask(turn, self._plan(turn, rng))

    def tell(self, step: int, outcome: Parent | None) -> None:
        """File an evaluated candidate."""
        self._turns.catch_up(step)
        filing = self._population.tell(step, outcome)
        if filing is None or outcome is None:
            return
        digest, said = outcome.candidate.digest, outcome.evaluation
        parent = next(iter(outcome.candidate.lineage.parents), None)
        elite = Elite.of(digest, said) if filing.usable and not isinstance(said, Failed) else None
        if filing.first and elite is None:
            self._niches.fail(parent)
        elif not (not filing.first and self._niches.correct(digest, elite)) and elite is not None:
            self._niches.place(elite, self._structures.of(outcome.candidate), parent)

    def statistics(self) -> dict[str, float]:
        """Counts and fitness of the population, niches and peaks, and what share goes where."""
        niches = self._niches.niches
        found = self._population.statistics() | {
            "niches": float(len(niches)),
            "peaks": float(sum(len(niche.peaks) for niche in niches)),
        }
        if niches:
            found["lead_share"] = self._lead(max(niches, key=lambda niche: niche.elites.worth))
        return found

    def _plan(self, turn: int, rng: random.Random) -> Plan:
        if turn < self._config.drafts or rng.random() < self._config.cold:
            return Plan("draft")
        repair = self._population.repair(rng)
        if repair is not None:
            return repair
        niches = self._niches.niches
        if not niches:
            return Plan("draft")
        homes = [home for digest in self._population.uses.open() if (home := self._niches.home(digest))]
        niche = self._choose(niches, Counter(home.niche for home in homes), self._config.niche_curiosity, rng)
        peak = self._choose(niche.peaks, Counter(homes), self._config.peak_curiosity, rng)
        parent = self._population[peak.elites.freshest(self._population.uses, self._config.overuse)]
        return self._population.breed(rng, parent, self._partner(peak, rng), cold=self._config.cold)

    def _choose(self, arms: Sequence[_Arm], pending: Counter[_Arm], curiosity: float, rng: random.Random) -> _Arm:
        """The leader at its share, else the most promising of the others."""
        leader = max(arms, key=lambda arm: arm.elites.worth)
        others = [arm for arm in arms if arm is not leader]
        if not others or rng.random() < self._lead(leader):
            return leader
        horizon = self._config.horizon
        return max(others, key=lambda a: promise(a, arms, pending[a], horizon=horizon, curiosity=curiosity))

    def _partner(self, peak: Peak, rng: random.Random) -> Parent | None:
        """For a crossover: the best of another niche or, where there is none, of another peak."""
        others: list[Arm] = [niche for niche in self._niches.niches if niche is not peak.niche]
        others = others or [other for other in peak.niche.peaks if other is not peak]
        return self._population[rng.choice(others).elites.top] if others else None

    def _lead(self, leader: Arm) -> float:
        gained = min(1.0, leader.pace * self._config.memory / self._config.worthwhile)
        return self._config.lead_stalled + (self._config.lead - self._config.lead_stalled) * gained
