"""Where a kernel was measured to win: the part of the shape space that an entry is served on. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from kernelevolve.schema import Box, Measurement

_Point = tuple[int, ...]


@dataclass(frozen=True)
class _Plane:
    """Measured points that share their element types and their axes."""

    dtypes: dict[str, str]
    names: tuple[str, ...]
    won: frozenset[_Point]
    lost: frozenset[_Point]
    """measured, and not shown to be faster: same, slower or ambiguous"""


def domain(measurements: Sequence[Measurement]) -> tuple[Box, ...]:
    """The boxes on which a kernel may be served, sorted; none lies inside another.

    A point is won if every measurement there says "faster" (inputs of the same shape may differ in content).
    A won point is a box. So is the hull of two won points, if every corner of it was measured and won, and if
    no point inside was measured without a win.
    """
    return tuple(
        Box(dtypes=plane.dtypes, axes=dict(zip(plane.names, zip(low, high, strict=True), strict=True)))
        for plane in _planes(measurements)
        for low, high in _maximal(_boxes(plane))
    )


def _planes(measurements: Sequence[Measurement]) -> tuple[_Plane, ...]:
    verdicts: dict[tuple[tuple[tuple[str, str], ...], tuple[str, ...]], dict[_Point, bool]] = {}
    for m in measurements:
        names = tuple(sorted(m.axes))
        points = verdicts.setdefault((tuple(sorted(m.dtypes.items())), names), {})
        point = tuple(m.axes[name] for name in names)
        points[point] = points.get(point, True) and m.verdict == "faster"
    return tuple(
        _Plane(
            dtypes=dict(dtypes),
            names=names,
            won=frozenset(point for point, won in points.items() if won),
            lost=frozenset(point for point, won in points.items() if not won),
        )
        for (dtypes, names), points in sorted(verdicts.items())
    )


def _boxes(plane: _Plane) -> Iterable[tuple[_Point, _Point]]:
    """Every box that may be served; its lowest and its highest corner are won points."""
    for low, high in product(plane.won, repeat=2):
        if (
            all(a <= b for a, b in zip(low, high, strict=True))
            and all(corner in plane.won for corner in product(*zip(low, high, strict=True)))
            and not any(_inside(point, point, low, high) for point in plane.lost)
        ):
            yield low, high


def _maximal(boxes: Iterable[tuple[_Point, _Point]]) -> list[tuple[_Point, _Point]]:
    every = sorted(set(boxes))
    return [box for box in every if not any(box != other and _inside(*box, *other) for other in every)]


def _inside(low: _Point, high: _Point, outer_low: _Point, outer_high: _Point) -> bool:
    return all(ol <= a and b <= oh for a, b, ol, oh in zip(low, high, outer_low, outer_high, strict=True))
