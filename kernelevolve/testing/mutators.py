"""Who makes children on a numeric landscape: blindly, or from what the brief remembers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from kernelevolve.testing.numeric_landscapes import NumericLandscape, Point

_SIZES = (0.05, 0.2, 0.6)
_HEED = 0.8
"""share of the steps against the slope that are turned"""


@dataclass(frozen=True)
class Move:
    """A change that was tried, and what it came to."""

    start: Point
    end: Point
    gain: float | None
    """logarithm of the speed-up, as measured; None where the child failed"""

    @property
    def delta(self) -> Point:
        """End minus start."""
        return tuple(b - a for a, b in zip(self.start, self.end, strict=True))


def blind(landscape: NumericLandscape, point: Point, rng: random.Random) -> Point:
    """One child of a point: where there are families some jump to a random one, the others change 1 to 3 numbers."""
    child = list(point)
    if landscape.families and rng.random() < landscape.jumps:
        child[0] = float(rng.randrange(landscape.families))
        return tuple(child)
    first = 1 if landscape.families else 0
    for _ in range(rng.choice((1, 1, 2, 3))):
        child[rng.randrange(first, len(child))] += rng.gauss(0, rng.choice(_SIZES))
    return tuple(child)


def heedful(
    landscape: NumericLandscape, point: Point, rng: random.Random, history: Sequence[Move], siblings: Sequence[Move]
) -> Point:
    """A blind child whose steps are turned, mostly, to where the remembered changes gained.

    `history` holds the changes that led to the parent, `siblings` those that were made of it. Each number's direction
    is the sum of steps weighted by their gains: a linear model of the slope. With nothing remembered it is blind.
    """
    child = list(blind(landscape, point, rng))
    if landscape.family(point) != landscape.family(tuple(child)):
        return tuple(child)
    known = [m for m in (*history, *siblings) if m.gain is not None and not _jumps(landscape, m)]
    for i, value in enumerate(point):
        slope = sum(move.gain * move.delta[i] for move in known if move.gain is not None)
        if slope * (child[i] - value) < 0 and rng.random() < _HEED:
            child[i] = 2 * value - child[i]
    return tuple(child)


def _jumps(landscape: NumericLandscape, move: Move) -> bool:
    return landscape.family(move.start) != landscape.family(move.end)
