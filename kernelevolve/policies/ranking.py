"""The order of candidates, best last."""

import math
from bisect import bisect_left, insort

from kernelevolve.schema import Passed, Triaged

_ESTIMATED, _UNKNOWN = -1e4, -2e4


def worth(evaluation: Passed | Triaged) -> float:
    """Natural logarithm of what ranks a candidate, so that differences are relative and have no unit.

    It is its fitness or, where nobody measures, its estimated rate. An estimate ranks below every measurement, and
    below that what has no estimate: by offsets that no logarithm of a time reaches.
    """
    if isinstance(evaluation, Passed):
        return math.log(evaluation.fitness)
    rate = evaluation.estimated_rate
    return _UNKNOWN if rate is None else _ESTIMATED + math.log(rate)


class Ranking:
    """Candidates by value. Each call costs a binary search, and a shift of the list that costs next to nothing."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}
        self._order: list[tuple[float, int, str]] = []
        """value, minus the number of the first setting (of equals the first one leads), digest"""
        self._numbers: dict[str, int] = {}
        self._total = 0.0

    def __len__(self) -> int:
        return len(self._order)

    def set(self, digest: str, value: float) -> None:
        """Give a candidate its value, or a new one."""
        self.discard(digest)
        number = self._numbers.setdefault(digest, -len(self._numbers))
        self._values[digest] = value
        self._total += value
        insort(self._order, (value, number, digest))

    def discard(self, digest: str) -> None:
        """Take a candidate out, if it is there."""
        value = self._values.pop(digest, None)
        if value is not None:
            self._total -= value
            del self._order[bisect_left(self._order, (value, self._numbers[digest], digest))]

    @property
    def top(self) -> str | None:
        """The candidate of the highest value, of equals the one that was set first."""
        return self._order[-1][2] if self._order else None

    @property
    def highest(self) -> float:
        """Raises `IndexError` when there is none."""
        return self._order[-1][0]

    @property
    def mean(self) -> float:
        """Raises `ZeroDivisionError` when there is none."""
        return self._total / len(self._order)

    def share_below(self, value: float) -> float:
        """Share of the candidates with a lower value, 0 to 1."""
        return bisect_left(self._order, (value,)) / max(1, len(self._order) - 1)
