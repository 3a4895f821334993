"""The policy `greedy`: always from the best."""

from typing import ClassVar

from pydantic import Field

from kernelevolve.policies.base import Plan
from kernelevolve.policies.population import Population
from kernelevolve.policies.turns import Turns
from kernelevolve.schema import Change, Parent, Record


class Greedy:
    """Drafts first, then changes the best candidate, with a few drafts in between."""

    name: ClassVar[str] = "greedy"

    class Config(Record):
        """Settings of the policy `greedy`."""

        drafts: int = Field(6, ge=1, description="drafts at the start, so that every seed gets its chance")
        draft_share: float = Field(0.1, ge=0, le=1, description="share of the later asks that are drafts")

    def __init__(self, config: Config, *, seed: int, changes: tuple[Change, ...]) -> None:
        self._config = config
        self._turns = Turns(seed)
        self._population = Population(changes)

    def ask(self) -> Plan:
        """A change to the best candidate; a draft at the start, now and then, and while none passed."""
        turn, rng = self._turns.take()
        if turn < self._config.drafts or rng.random() < self._config.draft_share:
            plan: Plan | None = Plan("draft")
        else:
            plan = self._population.repair(rng)
        best = self._population.best
        if plan is None and best is not None:
            plan = self._population.breed(rng, best)
        return self._population.ask(turn, plan or Plan("draft"))

    def tell(self, step: int, outcome: Parent | None) -> None:
        """File an evaluated candidate."""
        self._turns.catch_up(step)
        self._population.tell(step, outcome)

    def statistics(self) -> dict[str, float]:
        """Counts and fitness of the population."""
        return self._population.statistics()
