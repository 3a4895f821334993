"""The policy `best-of-n`: independent drafts, the baseline beside every claim for another policy."""

from typing import ClassVar

from kernelevolve.policies.base import Plan
from kernelevolve.policies.population import Population
from kernelevolve.policies.turns import Turns
from kernelevolve.schema import Change, Parent, Record


class BestOfN:
    """Drafts only: nothing that was learnt flows back into what is asked for."""

    name: ClassVar[str] = "best-of-n"

    class Config(Record):
        """The policy `best-of-n` has no settings; n is the run's budget."""

    def __init__(self, config: Config, *, seed: int, changes: tuple[Change, ...]) -> None:
        self._turns = Turns(seed)
        self._population = Population(changes)

    def ask(self) -> Plan:
        """A draft."""
        turn, _ = self._turns.take()
        return self._population.ask(turn, Plan("draft"))

    def tell(self, step: int, outcome: Parent | None) -> None:
        """Count an evaluated candidate."""
        self._turns.catch_up(step)
        self._population.tell(step, outcome)

    def statistics(self) -> dict[str, float]:
        """Counts and fitness of the population."""
        return self._population.statistics()
