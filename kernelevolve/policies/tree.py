"""The policy `tree`: a search of the tree of changes by upper confidence bounds (UCT, Kocsis and Szepesvari, 2006)."""

import math
import random
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import Field

from kernelevolve.policies.base import Plan
from kernelevolve.policies.population import Population
from kernelevolve.policies.ranking import Ranking, worth
from kernelevolve.policies.turns import Turns
from kernelevolve.schema import Change, Failed, Parent, Record


@dataclass
class _Node:
    """A candidate in the tree, or its root, under which the drafts are."""

    digest: str | None
    parent: "_Node | None"
    worth: float | None = None
    """None while it can't be a parent, and for the root"""
    visits: int = 0
    """steps that ended in this part of the tree"""
    children: list["_Node"] = field(default_factory=list)
    best: float | None = None
    """highest worth in this part of the tree"""


class Tree:
    """Descends from the root by the highest bound, and changes the candidate where that is its own.

    A node's value is the rank of the best in its part of the tree, 0 to 1: no unit, and an outlier is worth no more
    than a first place. At each node, changing the node itself competes with its children, valued by its own rank and
    its number of children; at the root, whose children are drafts, there is one more as often as there are few of
    them for its visits (progressive widening: Coulom, 2007). What is under way counts as visited.
    """

    name: ClassVar[str] = "tree"

    class Config(Record):
        """Settings of the policy `tree`."""

        drafts: float = Field(0.05, gt=0, le=1, description="least share of asks that are drafts; never zero")
        curiosity: float = Field(0.1, ge=0, description="weight of having visited a node little")
        widening: float = Field(1.0, gt=0, description="drafts in the tree: this times its visits to the power")
        power: float = Field(0.5, gt=0, lt=1, description="of the visits; more makes the tree broad")

    def __init__(self, config: Config, *, seed: int, changes: tuple[Change, ...]) -> None:
        self._config = config
        self._turns = Turns(seed)
        self._population = Population(changes)
        self._root = _Node(digest=None, parent=None)
        self._nodes: dict[str, _Node] = {}
        self._drafted = 0
        """drafts that were told, failed ones included"""
        self._ranks = Ranking()

    def ask(self) -> Plan:
        """A change to the node that the descent ends at; a draft at the root."""
        turn, rng = self._turns.take()
        return self._population.ask(turn, self._plan(rng))

    def tell(self, step: int, outcome: Parent | None) -> None:
        """File an evaluated candidate under its parent."""
        self._turns.catch_up(step)
        filing = self._population.tell(step, outcome)
        if filing is None or outcome is None:
            return
        candidate, said = outcome.candidate, outcome.evaluation
        parent = self._nodes.get(next(iter(candidate.lineage.parents), ""), self._root)
        if filing.first:
            self._drafted += parent is self._root
            for above in _upwards(parent):
                above.visits += 1
        usable = filing.usable and not isinstance(said, Failed)
        node = self._nodes.get(candidate.digest)
        if node is None and usable:
            node = self._nodes[candidate.digest] = _Node(digest=candidate.digest, parent=parent)
            parent.children.append(node)
        if node is not None:
            node.worth = worth(said) if usable and not isinstance(said, Failed) else None
            self._rank(node)

    def statistics(self) -> dict[str, float]:
        """Counts and fitness of the population, and the shape of the tree."""
        return self._population.statistics() | {
            "nodes": float(len(self._nodes)),
            "drafts": float(len(self._root.children)),
            "widest": float(max((len(node.children) for node in self._nodes.values()), default=0)),
        }

    def _plan(self, rng: random.Random) -> Plan:
        if rng.random() < self._config.drafts:
            return Plan("draft")
        repair = self._population.repair(rng)
        if repair is not None:
            return repair
        digest = self._descend().digest
        return Plan("draft") if digest is None else self._population.breed(rng, self._population[digest])

    def _descend(self) -> _Node:
        pending = self._pending()
        node = self._root
        while True:
            above = node.visits + pending.get(id(node), 0)
            children = [child for child in node.children if child.best is not None]
            bounds = {id(child): self._bound(child.best, above, child.visits + pending.get(id(child), 0) + 1)
                      for child in children}  # fmt: skip
            if not children or self._stays(node, above, max(bounds.values())):
                return node
            node = max(children, key=lambda child: bounds[id(child)])

    def _stays(self, node: _Node, above: int, best_child: float) -> bool:
        """Whether it is time for another child of this node itself."""
        if node.digest is None:
            drafts: float = self._config.widening * max(1, above) ** self._config.power
            return self._drafted + self._population.uses.open_drafts < drafts
        if node.worth is None:
            return False
        return self._bound(node.worth, above, self._population.uses.of(node.digest) + 1) >= best_child

    def _bound(self, worth: float | None, above: int, visits: int) -> float:
        assert worth is not None
        doubt = math.sqrt(math.log(above + 1) / visits)
        return self._ranks.share_below(worth) + self._config.curiosity * doubt

    def _pending(self) -> dict[int, int]:
        """Asks under way, by node and by those above it."""
        found: dict[int, int] = {}
        for digest in self._population.uses.open():
            start = self._nodes.get(digest)
            for node in _upwards(start) if start is not None else ():
                found[id(node)] = found.get(id(node), 0) + 1
        return found

    def _rank(self, node: _Node) -> None:
        """Give a node its place among all, and its ancestors theirs."""
        assert node.digest is not None
        if node.worth is None:
            self._ranks.discard(node.digest)
        else:
            self._ranks.set(node.digest, node.worth)
        for above in _upwards(node):
            worths = [child.best for child in above.children if child.best is not None]
            best = max(worths + ([above.worth] if above.worth is not None else []), default=None)
            if best == above.best:
                return
            above.best = best


def _upwards(node: _Node) -> "list[_Node]":
    """A node and those above it, up to the root."""
    found = [node]
    while found[-1].parent is not None:
        found.append(found[-1].parent)
    return found
