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
    resamples: int = 1000,
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
    drawn = np.random.default_rng(seed).integers(0, x.size, (resamples, x.size))
    # A resample that repeats one candidate orders nothing.
    drawn = drawn[(np.ptp(x[drawn], axis=1) > 0) & (np.ptp(y[drawn], axis=1) > 0)]
    ends = (1 - confidence) / 2, (1 + confidence) / 2
    spearman_low, spearman_high = np.quantile(_spearman(x[drawn], y[drawn]), ends)
    kendall_low, kendall_high = np.quantile([_kendall(x[one], y[one]) for one in drawn], ends)
    return Agreement(
        pairs=x.size, spearman=float(_spearman(x[None], y[None])[0]), spearman_low=float(spearman_low),
        spearman_high=float(spearman_high), kendall=_kendall(x, y), kendall_low=float(kendall_low),
        kendall_high=float(kendall_high), confidence=confidence,
    )  # fmt: skip


def _spearman(x: Floats, y: Floats) -> Floats:
    """Of each row: the correlation of ranks, equal values sharing theirs."""
    a, b = (r - r.mean(axis=1, keepdims=True) for r in (stats.rankdata(x, axis=1), stats.rankdata(y, axis=1)))
    found: Floats = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return found


def _kendall(x: Floats, y: Floats) -> float:
    """Tau-b: pairs in the same order less pairs in opposite order, over those that are ordered at all."""
    a, b = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    return float((a * b).sum() / np.sqrt(np.abs(a).sum() * np.abs(b).sum()))


def _constant(values: Floats) -> bool:
    return bool(np.all(values == values[0]))
