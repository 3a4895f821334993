"""The policy `islands`: populations that breed apart, and now and then exchange their best."""

import random
from typing import ClassVar

from pydantic import Field

from kernelevolve.policies.base import Plan
from kernelevolve.policies.elites import Elite, Elites
from kernelevolve.policies.population import Population
from kernelevolve.policies.turns import Turns
from kernelevolve.schema import Change, Failed, Parent, Record


class Islands:
    """Each step belongs to one island in turn: its parents live there, and there its child will.

    Parents are drawn by rank, the less often the more children they have. Every so many steps the best of each island
    is copied to the next one, around the ring.
    """

    name: ClassVar[str] = "islands"

    class Config(Record):
        """Settings of the policy `islands`."""

        islands: int = Field(4, ge=2, description="populations")
        size: int = Field(12, ge=2, description="candidates that an island keeps, the best")
        migrate_every: int = Field(30, ge=1, description="candidates told from one migration to the next")
        drafts: float = Field(0.1, gt=0, le=1, description="share of asks that are drafts; never zero")

    def __init__(self, config: Config, *, seed: int, changes: tuple[Change, ...]) -> None:
        self._config = config
        self._turns = Turns(seed)
        self._population = Population(changes)
        self._islands = [Elites(config.size) for _ in range(config.islands)]
        self._told = 0
        self._migrations = 0

    def ask(self) -> Plan:
        """A change to a candidate of the step's island, or a draft for it."""
        turn, rng = self._turns.take()
        return self._population.ask(turn, self._plan(self._islands[turn % len(self._islands)], rng))

    def tell(self, step: int, outcome: Parent | None) -> None:
        """File an evaluated candidate on its step's island."""
        self._turns.catch_up(step)
        filing = self._population.tell(step, outcome)
        if filing is None or outcome is None:
            return
        digest, said = outcome.candidate.digest, outcome.evaluation
        if isinstance(said, Failed) or not filing.usable:
            for island in self._islands:
                island.discard(digest)
        else:
            holding = [island for island in self._islands if digest in island]
            for island in holding or [self._islands[step % len(self._islands)]]:
                island.file(Elite.of(digest, said))
        self._told += filing.first
        if filing.first and self._told % self._config.migrate_every == 0:
            self._migrate()

    def statistics(self) -> dict[str, float]:
        """Counts and fitness of the population, inhabitants of each island, and copies that migrated."""
        sizes = {f"island_{number}": float(len(island)) for number, island in enumerate(self._islands)}
        return self._population.statistics() | sizes | {"migrations": float(self._migrations)}

    def _plan(self, island: Elites, rng: random.Random) -> Plan:
        if rng.random() < self._config.drafts:
            return Plan("draft")
        repair = self._population.repair(rng)
        if repair is not None or not island:
            return repair or Plan("draft")
        uses = self._population.uses
        parent = island.draw(rng, uses)
        partner = island.draw(rng, uses)
        return self._population.breed(
            rng, self._population[parent], None if partner == parent else self._population[partner]
        )

    def _migrate(self) -> None:
        """Copy at once what is best now: nobody travels two islands at a time."""
        best = [island.best if island else None for island in self._islands]
        for number, leaving in enumerate(best):
            destination = self._islands[(number + 1) % len(self._islands)]
            if leaving is not None and leaving.digest not in destination:
                destination.file(leaving)
                self._migrations += leaving.digest in destination
