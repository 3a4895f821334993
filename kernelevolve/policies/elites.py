"""The best few of a group."""

import math
import random

from kernelevolve.policies.uses import Uses


class Elites:
    """At most `size` candidates with their worth, the best first; of equals the newest, so that plateaus are walked."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._best: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._best)

    def __contains__(self, digest: object) -> bool:
        return any(digest == kept for _, kept in self._best)

    def file(self, digest: str, worth: float) -> None:
        """Take a candidate in, or correct its worth; the worst goes where there are too many."""
        self.discard(digest)
        place = sum(value > worth for value, _ in self._best)
        self._best.insert(place, (worth, digest))
        del self._best[self._size :]

    def discard(self, digest: str) -> None:
        """Take a candidate out, if it is there."""
        self._best = [entry for entry in self._best if entry[1] != digest]

    def take(self, other: "Elites") -> None:
        """Take in those of another group."""
        for worth, digest in reversed(other._best):
            self.file(digest, worth)

    @property
    def top(self) -> str:
        """The best candidate. Raises `IndexError` when there is none."""
        return self._best[0][1]

    @property
    def worth(self) -> float:
        """Worth of the best candidate. Raises `IndexError` when there is none."""
        return self._best[0][0]

    def draw(self, rng: random.Random, uses: Uses) -> str:
        """A candidate with a chance that falls with its rank and its number of children: no units, no idols."""
        weights = [1 / (rank * (1 + uses.of(digest))) for rank, (_, digest) in enumerate(self._best, 1)]
        return rng.choices([digest for _, digest in self._best], weights)[0]

    def freshest(self, uses: Uses, overuse: float) -> str:
        """The best candidate, after `overuse` was taken off its worth for every e-fold of its children."""
        return max(self._best, key=lambda entry: entry[0] - overuse * math.log1p(uses.of(entry[1])))[1]
