"""The best few of a group."""

import math
import random
from dataclasses import dataclass

from kernelevolve.policies.ranking import worth
from kernelevolve.policies.uses import Uses
from kernelevolve.schema import Passed, Triaged


@dataclass(frozen=True)
class Elite:
    """A candidate with what it is worth (`ranking.worth`)."""

    digest: str
    worth: float
    """for certain"""
    likely: float
    """by the best estimate"""

    @classmethod
    def of(cls, digest: str, said: Passed | Triaged) -> "Elite":
        """By its evaluation."""
        sure = worth(said)
        return cls(digest, sure, math.log(said.speedup) if isinstance(said, Passed) else sure)


class Elites:
    """At most `size` candidates with their worth, the best first; of equals the newest, so that plateaus are walked."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._best: list[Elite] = []

    def __len__(self) -> int:
        return len(self._best)

    def __contains__(self, digest: object) -> bool:
        return any(digest == kept.digest for kept in self._best)

    def file(self, elite: Elite) -> None:
        """Take a candidate in, or correct its worth; the worst goes where there are too many."""
        self.discard(elite.digest)
        place = sum(kept.worth > elite.worth for kept in self._best)
        self._best.insert(place, elite)
        del self._best[self._size :]

    def discard(self, digest: str) -> None:
        """Take a candidate out, if it is there."""
        self._best = [entry for entry in self._best if entry.digest != digest]

    def take(self, other: "Elites") -> None:
        """Take in those of another group."""
        for kept in reversed(other._best):
            self.file(kept)

    @property
    def best(self) -> Elite:
        """The best candidate with its worth. Raises `IndexError` when there is none."""
        return self._best[0]

    @property
    def top(self) -> str:
        """The best candidate. Raises `IndexError` when there is none."""
        return self._best[0].digest

    @property
    def worth(self) -> float:
        """Worth of the best candidate. Raises `IndexError` when there is none."""
        return self._best[0].worth

    def draw(self, rng: random.Random, uses: Uses) -> str:
        """A candidate with a chance that falls with its rank and its number of children: no units, no idols."""
        weights = [1 / (rank * (1 + uses.of(kept.digest))) for rank, kept in enumerate(self._best, 1)]
        return rng.choices([kept.digest for kept in self._best], weights)[0]

    def freshest(self, uses: Uses, overuse: float) -> str:
        """The best candidate, after `overuse` was taken off its worth for every e-fold of its children.

        Of those that are likely to be worth what the best is for certain, the one with the fewest children.
        """
        best = max(self._best, key=lambda kept: kept.worth - overuse * math.log1p(uses.of(kept.digest)))
        equals = [kept for kept in self._best if kept is best or kept.likely > best.worth]
        return min(equals, key=lambda kept: (uses.of(kept.digest), -kept.worth)).digest
