"""The policy `random`: no selection pressure, so that selection can be told from luck."""

from typing import ClassVar

from pydantic import Field

from kernelevolve.policies.base import Plan
from kernelevolve.policies.population import Population
from kernelevolve.policies.turns import Turns
from kernelevolve.schema import Change, Parent, Record


class Random:
    """Changes a passed candidate chosen uniformly, and keeps drafting."""

    name: ClassVar[str] = "random"

    class Config(Record):
        """Settings of the policy `random`."""

        drafts: float = Field(0.25, gt=0, le=1, description="share of asks that are drafts; never zero")

    def __init__(self, config: Config, *, seed: int, changes: tuple[Change, ...]) -> None:
        self._config = config
        self._turns = Turns(seed)
        self._population = Population(changes)

    def ask(self) -> Plan:
        """A change to a random parent, or a draft; always a draft while nothing has passed."""
        turn, rng = self._turns.take()
        if rng.random() < self._config.drafts:
            plan: Plan | None = Plan("draft")
        else:
            plan = self._population.repair(rng)
        if plan is None and len(self._population):
            plan = self._population.breed(rng, self._population.draw(rng))
        return self._population.ask(turn, plan or Plan("draft"))

    def tell(self, step: int, outcome: Parent | None) -> None:
        """File an evaluated candidate."""
        self._turns.catch_up(step)
        self._population.tell(step, outcome)

    def statistics(self) -> dict[str, float]:
        """Counts and fitness of the population."""
        return self._population.statistics()
