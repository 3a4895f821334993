"""How often each candidate was chosen as a parent."""

from collections import Counter
from collections.abc import Iterator

from kernelevolve.policies.base import Plan
from kernelevolve.schema import Lineage

_FORGET_AFTER = 64
"""steps told after which an ask that nobody told of counts no more: its answer is lost"""


class Uses:
    """Children told, and children asked for: with several questions under way a parent is used when it is chosen."""

    def __init__(self) -> None:
        self._told: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._joined: Counter[frozenset[str]] = Counter()
        self._open: dict[int, tuple[str, ...]] = {}
        """turn to parents, in the order of asking"""

    def ask(self, turn: int, plan: Plan) -> None:
        """Note what was asked for."""
        self._open[turn] = tuple(parent.candidate.digest for parent in plan.parents)
        self._asked.update(self._open[turn])

    def close(self, step: int) -> None:
        """Note that a step is over: from now on only what was told of it counts."""
        self._drop(step)
        while self._open and (oldest := next(iter(self._open))) < step - _FORGET_AFTER:
            self._drop(oldest)

    def tell(self, lineage: Lineage) -> None:
        """Count a child that was told."""
        self._told.update(lineage.parents)
        if len(lineage.parents) > 1:
            self._joined[frozenset(lineage.parents)] += 1

    def joined(self, one: str, other: str) -> int:
        """Crossovers of these two that were told."""
        return self._joined[frozenset((one, other))]

    def joining(self, one: str, other: str) -> bool:
        """Whether a crossover of these two was asked for and not told."""
        return any({one, other} == {*parents} for parents in self._open.values() if len(parents) > 1)

    def of(self, digest: str) -> int:
        """Children of a candidate, those that were only asked for included."""
        return self._told[digest] + self._asked[digest]

    def children(self, digest: str) -> int:
        """Children of a candidate that were told."""
        return self._told[digest]

    def open(self) -> Iterator[str]:
        """First parent of every ask that wasn't told and has one."""
        return (parents[0] for parents in self._open.values() if parents)

    @property
    def open_drafts(self) -> int:
        """Drafts that were asked for and not told."""
        return sum(not parents for parents in self._open.values())

    def _drop(self, turn: int) -> None:
        parents = self._open.pop(turn, ())
        self._asked.subtract(parents)
        for digest in parents:
            if not self._asked[digest]:
                del self._asked[digest]
