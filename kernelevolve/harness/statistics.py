"""What a growing series of paired ratios proves about their median, however often one looks at it.

The number of ratios above the true median is a walk of fair coin tosses whatever their distribution, so that the chance
of an interval between two order statistics to miss the median *at any of the looks so far* is known exactly. It is
handed out over the looks as a group-sequential trial does: Lan and DeMets, Biometrika 70 (1983), with their function of
Pocock's type; the intervals are the repeated confidence intervals of Jennison and Turnbull, JRSS B 51 (1989). They hold
together, so measuring may stop at any look for any reason. With a single look this is the exact binomial interval.

To that comes what no number of looks shows: the same kernel in two processes differs, by where its pages lie.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

from scipy.stats import mannwhitneyu

from kernelevolve.schema import Verdict

SAME = 0.02
"""An interval that lies within 1 +- this is the verdict `same`."""

PLACEMENT = 0.01
"""By how much two processes of one kernel differ (measured: `scripts/bench-trust`); every interval is wider by it."""

MOVED = 0.05
"""A baseline that moves by less than this against the candidate is noise, for all that anybody can tell."""


@dataclass(frozen=True)
class Interval:
    """Where the speed-up lies. `covers`: probability that it does, at every look so far."""

    low: float
    high: float
    covers: float


def interval(ratios: Sequence[float], first: int, most: int, confidence: float) -> Interval:
    """Interval of the median of ratios that are looked at after `first` of them and after each further one.

    `most` is how many there may become. Too few for the confidence give their range, and how little that covers
    beside all the looks that were planned for.
    """
    outside, n = ranks(first, most, confidence)[min(len(ratios), most) - 1], len(ratios)
    ordered = sorted(ratios)
    low, high = (ordered[outside], ordered[n - 1 - outside]) if outside >= 0 else (ordered[0], ordered[-1])
    covers = confidence if outside >= 0 else max(0.0, confidence - 2.0 ** (1 - n))
    return Interval(low / (1 + PLACEMENT), high * (1 + PLACEMENT), covers)


@cache
def ranks(first: int, most: int, confidence: float) -> tuple[int, ...]:
    """For 1 to `most` ratios: how many of them lie outside of the interval at either end; -1: there is none yet."""
    inside = [1.0]  # probability of each number of ratios above the median, with no interval so far that missed it
    spent, outside, found = 0.0, -1, []
    for n in range(1, most + 1):
        inside = [(a + b) / 2 for a, b in zip([*inside, 0.0], [0.0, *inside], strict=True)]
        allowed = (1 - confidence) * math.log(1 + (math.e - 1) * n / most)
        # Whoever had fewer than `outside` above has missed already: one more at either end costs just these two.
        while n >= first and 2 * outside + 4 <= n and spent + 2 * inside[outside + 1] <= allowed:
            outside += 1
            spent += 2 * inside[outside]
            inside[outside] = inside[n - outside] = 0.0
        found.append(outside)
    return tuple(found)


def verdict(found: Interval, confidence: float) -> Verdict:
    """What an interval says. Nothing is faster, or the same, by an interval that covers less than was asked for."""
    if found.high < 1 - SAME:
        return "slower"
    if found.covers < confidence:
        return "ambiguous"
    if found.low > 1 - SAME and found.high < 1 + SAME:
        return "same"
    if found.low > 1:
        return "faster"
    return "slower" if found.high < 1 else "ambiguous"


def moved(candidate: Sequence[float], baseline: Sequence[float]) -> bool:
    """Whether the baseline's turns became slower or faster from the first half to the second, and only they.

    Mann and Whitney's test (1947) at one in a hundred, and by more than noise. A machine that slows down for both voids
    nothing: that is what pairs are for.
    """
    half = len(baseline) // 2
    if half < 4 or mannwhitneyu(baseline[:half], baseline[half:]).pvalue >= 0.01:
        return False
    ratios = [b / c for c, b in zip(candidate, baseline, strict=True)]
    by = [abs(median(times[half:]) / median(times[:half]) - 1) for times in (baseline, ratios)]
    return min(by) > MOVED and mannwhitneyu(ratios[:half], ratios[half:]).pvalue < 0.01
