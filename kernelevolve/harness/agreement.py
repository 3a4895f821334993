"""How well estimates order candidates: rank correlation with what was measured, with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

FEWEST = 3
"""Pairs below which nothing is said."""


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho and Kendall's tau-b of estimated and measured times, -1 to 1, each with a bootstrap interval."""

    pairs: int
    spearman: float
    spearman_low: float
    spearman_high: float
    kendall: float
    kendall_low: float
    kendall_high: float
    confidence: float


def agreement(
    estimated_us: Sequence[float],
    measured_us: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Agreement | None:
    """Of pairs in the same order; None for fewer than three, or where one side is all the same.

    The interval is the percentile bootstrap over pairs (Efron, 1979): candidates are resampled, not measurements.
    """
    x, y = np.asarray(estimated_us, dtype=float), np.asarray(measured_us, dtype=float)
    if x.shape != y.shape:
        raise ValueError(f"{x.size} estimates for {y.size} measurements")
    if x.size < FEWEST or _constant(x) or _constant(y):
        return None
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = generator.integers(0, x.size, x.size)
        # A resample that repeats one candidate orders nothing.
        if not (_constant(x[drawn]) or _constant(y[drawn])):
            found.append(_coefficients(x[drawn], y[drawn]))
    ends = np.quantile(np.asarray(found), [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    spearman, kendall = _coefficients(x, y)
    return Agreement(
        pairs=x.size, spearman=spearman, spearman_low=float(ends[0, 0]), spearman_high=float(ends[1, 0]),
        kendall=kendall, kendall_low=float(ends[0, 1]), kendall_high=float(ends[1, 1]), confidence=confidence,
    )  # fmt: skip


def _coefficients(x: Floats, y: Floats) -> tuple[float, float]:
    return float(stats.spearmanr(x, y).statistic), float(stats.kendalltau(x, y).statistic)


def _constant(values: Floats) -> bool:
    return bool(np.all(values == values[0]))
