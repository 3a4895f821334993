"""Numeric landscapes: functions with known optima, written as C++ sources that carry their parameters.

`ridge` and `trap` are those behind published comparisons of search engines: a smooth ridge in eight dimensions, and
four families where the hill at the start is worth half of the highest. The others were made to find out where a policy
fails. On most of them a family shows in the source, as an algorithm does: other statements, not only other numbers.
"""

import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from kernelevolve.errors import UnknownNameError

Point = tuple[float, ...]
"""Where a candidate stands; in a landscape of families the first number names the family."""

Style = str
"""How a point is written: `plain` shows the family as other statements, `hidden` as a number among the others,
`restyled` writes every candidate in other words, whatever it is."""

_NUMBERS = re.compile(r"constexpr double \w+ = (\S+);")
_OFFSETS = (0.8, -0.6, 0.3, 1.1, -0.9, 0.5, -0.2, 0.7)


@dataclass(frozen=True)
class NumericLandscape:
    """A function to climb, and how its climbing goes wrong."""

    name: str
    summary: str
    score: Callable[[Point], float]
    """from 0 (excluded) to 1, the optimum"""
    dimensions: int = 8
    families: int = 0
    """0 where there are none"""
    jumps: float = 0.1
    """share of the children that jump to a random family"""
    style: Style = "plain"
    noise: float = 0.0
    """standard deviation of the logarithm of a measured speed"""
    lucky: float = 0.0
    """share of the measurements that come out half as fast again"""
    failures: float = 0.0
    """share of the children that don't build; a repair succeeds as often as not"""
    heedful: bool = False
    """whether children are made from what the brief remembers, or blindly"""

    @property
    def start(self) -> Point:
        """Where everyone starts."""
        return (0.0,) * self.dimensions

    def family(self, point: Point) -> int:
        """The family of a point, 0 where there are none."""
        return round(point[0]) % self.families if self.families else 0

    def write(self, point: Point, style_seed: int) -> dict[str, str]:
        """The source of a point; `style_seed` chooses the words of a restyled one."""
        if self.style == "restyled":
            return {"main.cpp": _source(point, f"{self.name} {style_seed}")}
        return {"main.cpp": _source(point, f"{self.name} {self.family(point) if self.style == 'plain' else 0}")}


def read(files: Mapping[str, str]) -> Point:
    """The point that a source carries."""
    return tuple(float(value) for value in _NUMBERS.findall(files["main.cpp"]))


def ridge(point: Point) -> float:
    """Smooth, with ripples that are no obstacle."""
    return _rippled(point, 0.05)


def rugged(point: Point) -> float:
    """The ridge with ripples that make local optima."""
    return _rippled(point, 0.25)


def trap(point: Point) -> float:
    """Four families; the first, where everyone starts, is worth .5, the last 1."""
    height, optimum = _TRAP[round(point[0]) % 4]
    return height * _hill(point[1:], optimum)


def deceptive(point: Point) -> float:
    """A broad hill worth .6 on one side, a narrow one worth 1 on the other."""
    broad = 0.6 * _hill(point, (0.4,) * len(point), width=0.25)
    return max(broad, _hill(point, (-0.6, -0.5, -0.4, -0.6, -0.3, -0.2, -0.5, -0.4), width=1.2), 1e-6)


def plateau(point: Point) -> float:
    """The ridge in ten steps: most changes make no difference."""
    return max(0.1, math.floor(10 * ridge(point)) / 10)


def lottery(point: Point) -> float:
    """Families without hills: how fast one is can't be told from any other, and climbing gains little."""
    best = random.Random(f"lottery {round(point[0]) % _LOTTERY}").random() ** 2
    return (0.05 + 0.85 * best) * (0.9 + 0.1 * _hill(point[1:], (0.3,) * (len(point) - 1)))


_LOTTERY = 400

_TRAP: Mapping[int, tuple[float, Point]] = {
    0: (0.50, (0.3, -0.3, 0.2, 0.3, -0.2, 0.3, -0.3)),
    1: (0.40, (-0.6, 0.5, 0.7, -0.6, 0.5, -0.7, 0.6)),
    2: (0.70, (0.9, 0.4, -0.5, 0.9, 0.5, -0.4, 0.4)),
    3: (1.00, (-0.45, 0.45, 0.95, -0.45, 0.55, -0.45, 0.45)),
}


def many_families(count: int, seed: int) -> Callable[[Point], float]:
    """Hills of random height (.3 to .8) and place, one of them worth 1; the start is on a random one."""
    rng = random.Random(f"families {count} {seed}")
    hills = [(rng.uniform(0.3, 0.8), tuple(rng.uniform(-0.9, 0.9) for _ in range(7))) for _ in range(count)]
    highest = rng.randrange(1, count)
    hills[highest] = (1.0, hills[highest][1])

    def score(point: Point) -> float:
        height, optimum = hills[round(point[0]) % count]
        return height * _hill(point[1:], optimum)

    return score


@cache
def landscapes() -> Mapping[str, NumericLandscape]:
    """Every landscape by its name: the two published ones first, with their noisy and heedful variants."""
    smooth = NumericLandscape("ridge", "smooth, eight dimensions", ridge)
    traps = NumericLandscape("trap", "four families; the first hill is worth half", trap, families=4)
    found = [
        smooth,
        traps,
        replace(smooth, name="ridge-heedful", summary="a mutator that uses its feedback", heedful=True),
        replace(traps, name="trap-heedful", summary="a mutator that uses its feedback", heedful=True),
        _noisy(smooth),
        _noisy(traps),
        _noisy(replace(smooth, name="ridge-heedful", heedful=True)),
        _noisy(replace(traps, name="trap-heedful", heedful=True)),
        _loud(smooth),
        _loud(traps),
        _loud(replace(smooth, name="ridge-heedful", heedful=True)),
        replace(traps, name="trap-hidden", summary="the source doesn't show the family", style="hidden"),
        replace(smooth, name="ridge-restyled", summary="every source looks new", style="restyled"),
        replace(traps, name="trap-restyled", summary="every source looks new", style="restyled"),
        replace(smooth, name="ridge-fragile", summary="six children in ten don't build", failures=0.6),
        replace(traps, name="trap-fragile", summary="six children in ten don't build", failures=0.6),
        NumericLandscape("families-16", "16 families", many_families(16, 1), families=16),
        NumericLandscape("families-64", "64 families", many_families(64, 2), families=64, jumps=0.25),
        NumericLandscape("lottery", "400 families, hardly a slope", lottery, families=_LOTTERY, jumps=0.25),
        NumericLandscape("rugged", "ripples with local optima", rugged),
        NumericLandscape("deceptive", "a broad low hill against a narrow high one", deceptive),
        NumericLandscape("plateau", "ten steps", plateau),
        NumericLandscape("wide", "the ridge in 24 dimensions", ridge, dimensions=24),
    ]
    return {landscape.name: landscape for landscape in found}


def landscape(name: str) -> NumericLandscape:
    """The landscape of that name. Raises `UnknownNameError`."""
    known = landscapes()
    if name not in known:
        raise UnknownNameError(f"no landscape is called {name!r}", remedy=f"choose one of: {', '.join(known)}")
    return known[name]


def _loud(calm: NumericLandscape) -> NumericLandscape:
    """As noisy as a shared virtual machine: kernels of nearly the same speed can't be told apart."""
    return replace(calm, name=f"{calm.name}-loud", summary="12 % noise, 2 % lucky measurements", noise=0.12, lucky=0.02)


def _noisy(calm: NumericLandscape) -> NumericLandscape:
    return replace(calm, name=f"{calm.name}-noisy", summary="5 % noise, 2 % lucky measurements", noise=0.05, lucky=0.02)


def _rippled(point: Point, ripple: float) -> float:
    offsets = [value - _OFFSETS[i % len(_OFFSETS)] for i, value in enumerate(point)]
    return math.exp(-0.35 * sum(d * d for d in offsets) - ripple * sum(1 - math.cos(6 * d) for d in offsets))


def _hill(point: Point, optimum: Point, *, width: float = 0.35) -> float:
    return math.exp(-width * sum((a - b) ** 2 for a, b in zip(point, optimum, strict=True)))


_WORDS = ("tile", "lane", "heap", "scan", "bucket", "merge", "pivot", "queue", "block", "vote", "prefix", "warp",
          "radix", "filter", "stage", "ring", "panel", "split", "fold", "gather")  # fmt: skip


@cache
def _statements(words: str) -> str:
    """The body of a kernel: some twenty statements that differ from one algorithm to the next."""
    rng = random.Random(words)
    lines = []
    for _ in range(20):
        one, two, three = rng.choices(_WORDS, k=3)
        form = rng.choice(("  {}({}[i], {});", "  for (auto& {0} : {1}) {2}({0});", "  if ({} < {}) {} = i;",
                           "  {} = {}(x, y) * {};", "  while ({}.{}()) {}(i);"))  # fmt: skip
        lines.append(form.format(one, two, three))
    return "\n".join(lines)


def _source(point: Point, words: str) -> str:
    numbers = "\n".join(f"constexpr double c{i} = {value:.6f};" for i, value in enumerate(point))
    return f"{numbers}\nvoid run() {{\n{_statements(words)}\n}}\nTVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);\n"
