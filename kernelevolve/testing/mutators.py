"""Who makes children on a numeric landscape: blindly, or from what the brief remembers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from kernelevolve.testing.numeric_landscapes import NumericLandscape, Point

_SIZES = (0.05, 0.2, 0.6)


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
    """A child that goes on in a direction that helped the parent, or away from one that hurt a sibling.

    `history` holds the changes that led to the parent, the last one first; `siblings` those that were made of it.
    Half of the children are blind all the same, and all where nothing is remembered.
    """
    if rng.random() < 0.5:
        return blind(landscape, point, rng)
    helped = next((m for m in history if m.gain is not None and m.gain > 0 and not _jumps(landscape, m)), None)
    hurt = [m for m in siblings if m.gain is not None and m.gain < 0 and not _jumps(landscape, m)]
    if hurt and (helped is None or rng.random() < 0.5):
        away = rng.choice(hurt)
        return _moved(point, away.delta, -rng.uniform(0.3, 1.0))
    if helped is not None:
        return _moved(point, helped.delta, rng.uniform(0.3, 1.5))
    return blind(landscape, point, rng)


def _jumps(landscape: NumericLandscape, move: Move) -> bool:
    return landscape.family(move.start) != landscape.family(move.end)


def _moved(point: Point, delta: Point, share: float) -> Point:
    return tuple(value + share * d for value, d in zip(point, delta, strict=True))
