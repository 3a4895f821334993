"""The policy `map-elites`: the best of every kind of kernel (after Mouret and Clune, 2015)."""

import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from kernelevolve.policies.base import Plan
from kernelevolve.policies.elites import Elite, Elites
from kernelevolve.policies.population import Population
from kernelevolve.policies.structure import Structure, Structures
from kernelevolve.policies.turns import Turns
from kernelevolve.schema import Candidate, Change, Evaluation, Failed, Parent, Record

_MOST_KINDS = 64
_KEPT = 3
"""elites of a cell: when the best fails its second look, the next one takes its place"""


@dataclass(frozen=True)
class Cell:
    """How a kernel behaves, in coarse steps."""

    kind: int
    """of structure: the number of the first kernel that it resembles"""
    bound: str
    """what holds it back by its profile, on most workloads; `unknown` without a profile"""
    size: int
    """of the code: twice the binary logarithm of its characters"""
    numbers: int
    """mean of the scaled numbers in it (tile sizes, unrolling), in quarters"""


class MapElites:
    """A grid of kinds of structure, bottleneck, code size and numbers; each cell keeps its best.

    A few occupied cells are drawn uniformly, and the best of those, after what its children count for, is changed.
    """

    name: ClassVar[str] = "map-elites"

    class Config(Record):
        """Settings of the policy `map-elites`."""

        drafts: float = Field(0.1, gt=0, le=1, description="share of asks that are drafts; never zero")
        drawn: int = Field(3, ge=1, description="cells that compete to be the parent's; 1 means no pressure")
        overuse: float = Field(0.1, gt=0, description="taken off a cell for every e-fold of its asks")
        apart: float = Field(0.5, gt=0, le=1, description="structural distance of kinds, 0 to 1")

    def __init__(self, config: Config, *, seed: int, changes: tuple[Change, ...]) -> None:
        self._config = config
        self._turns = Turns(seed)
        self._population = Population(changes)
        self._structures = Structures()
        self._kinds: list[Structure] = []
        self._grid: dict[Cell, Elites] = {}
        self._occupied: list[Cell] = []
        self._cells: dict[str, Cell] = {}
        """every candidate's"""
        self._changed: Counter[Cell] = Counter()
        """changes that were told, by the cell of their parent"""

    def ask(self) -> Plan:
        """A change to an elite, or a draft."""
        turn, rng = self._turns.take()
        return self._population.ask(turn, self._plan(rng))

    def tell(self, step: int, outcome: Parent | None) -> None:
        """File an evaluated candidate in its cell."""
        self._turns.catch_up(step)
        filing = self._population.tell(step, outcome)
        if filing is None or outcome is None:
            return
        if filing.first:
            homes = {self._cells.get(parent) for parent in outcome.candidate.lineage.parents}
            self._changed.update(home for home in homes if home is not None)
        digest, said = outcome.candidate.digest, outcome.evaluation
        if digest in self._cells:
            self._empty(self._cells[digest], digest)
        if not isinstance(said, Failed) and filing.usable:
            cell = self._cells[digest] = self._cell(outcome.candidate, said)
            if cell not in self._grid:
                self._grid[cell] = Elites(_KEPT)
                self._occupied.append(cell)
            self._grid[cell].file(Elite.of(digest, said))

    def statistics(self) -> dict[str, float]:
        """Counts and fitness of the population, and the occupied part of the grid."""
        grid = {"cells": float(len(self._occupied)), "kinds": float(len(self._kinds))}
        return self._population.statistics() | grid

    def _plan(self, rng: random.Random) -> Plan:
        if rng.random() < self._config.drafts:
            return Plan("draft")
        repair = self._population.repair(rng)
        if repair is not None or not self._occupied:
            return repair or Plan("draft")
        open_asks = Counter(self._cells.get(digest) for digest in self._population.uses.open())
        drawn = [rng.choice(self._occupied) for _ in range(self._config.drawn)]
        cell = max(drawn, key=lambda c: self._appeal(c, open_asks[c]))
        uses, elites = self._population.uses, self._grid[cell]
        parent = self._population[elites.freshest(uses, self._config.overuse)]
        other = self._grid[rng.choice(self._occupied)].top
        partner = None if other == parent.candidate.digest else self._population[other]
        return self._population.breed(rng, parent, partner)

    def _appeal(self, cell: Cell, open_asks: int) -> float:
        return self._grid[cell].worth - self._config.overuse * math.log1p(self._changed[cell] + open_asks)

    def _cell(self, candidate: Candidate, evaluation: Evaluation) -> Cell:
        structure = self._structures.of(candidate)
        bounds = Counter(d.bound for d in evaluation.diagnostics if d.kind == "profile")
        characters = sum(len(text) for text in candidate.files.values())
        return Cell(
            kind=self._kind(structure),
            bound=min(bounds, key=lambda bound: (-bounds[bound], bound), default="unknown"),
            size=round(2 * math.log2(max(1, characters))),
            numbers=round(4 * sum(structure.numbers) / len(structure.numbers)) if structure.numbers else 0,
        )

    def _kind(self, structure: Structure) -> int:
        distances = [kind.apart(structure) for kind in self._kinds]
        nearest = min(range(len(distances)), key=distances.__getitem__, default=None)
        if nearest is not None and (distances[nearest] < self._config.apart or len(distances) >= _MOST_KINDS):
            return nearest
        self._kinds.append(structure)
        return len(self._kinds) - 1

    def _empty(self, cell: Cell, digest: str) -> None:
        """Take a candidate out of its cell, and the cell off the list when nothing is left in it."""
        elites = self._grid.get(cell)
        if elites is None:
            return
        elites.discard(digest)
        if not elites:
            del self._grid[cell]
            self._occupied.remove(cell)
