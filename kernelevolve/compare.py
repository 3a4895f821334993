"""Policies side by side: the same seeds for each, best at n, and intervals that say which differences mean anything."""

from collections.abc import Callable, Sequence

from pydantic import Field

from kernelevolve.errors import UsageError
from kernelevolve.schema import Passed, Record, Step

CONFIDENCE = 0.95
_RESAMPLES = 2000
_MARKS = (10, 25, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)

Play = Callable[[str, int], Sequence[float]]
"""Name of a policy and a seed to the best after each evaluation of a search; higher is better."""


class Mark(Record):
    """The best after so many evaluations, over the seeds."""

    evaluations: int
    mean: float
    low: float = Field(description="lower end of the bootstrap interval of the mean")
    high: float = Field(description="upper end")


class Standing(Record):
    """How one policy did."""

    policy: str
    marks: tuple[Mark, ...] = Field(description="fewest evaluations first")
    finals: tuple[float, ...] = Field(description="best of each seed at the end, in the order of the seeds")


class Comparison(Record):
    """Policies on one subject, with the same seeds."""

    subject: str = Field(description="a landscape or a target")
    evaluations: int
    seeds: tuple[int, ...]
    confidence: float = Field(CONFIDENCE, description="coverage of the intervals, 0 to 1")
    standings: tuple[Standing, ...] = Field(description="the best mean at the end first")


def compare(subject: str, policies: Sequence[str], seeds: Sequence[int], evaluations: int, play: Play) -> Comparison:
    """Play every policy with every seed."""
    marks = (*(n for n in _MARKS if n < evaluations), evaluations)
    standings = [_standing(policy, [play(policy, seed) for seed in seeds], marks) for policy in policies]
    return Comparison(
        subject=subject,
        evaluations=evaluations,
        seeds=tuple(seeds),
        standings=tuple(sorted(standings, key=lambda s: -s.marks[-1].mean)),
    )


def best_after_each(steps: Sequence[Step]) -> tuple[float, ...]:
    """What a user would be served after each evaluation of a run, in the order of asking.

    That is the lower end of the interval of the best that a second look confirmed, or the baseline (1.0) where
    nothing was shown to be faster.
    """
    best, found = 1.0, []
    for step in sorted((s for s in steps if s.evaluation is not None), key=lambda s: s.number):
        best = max([best, *(c.fitness for c in step.confirmations if isinstance(c, Passed))])
        found.append(best)
    return tuple(found)


def _standing(policy: str, curves: Sequence[Sequence[float]], marks: Sequence[int]) -> Standing:
    if not all(curves):
        raise UsageError(f"a search with the policy {policy} evaluated nothing", remedy="raise --evals or the budgets")
    # A search that ended early keeps what it had.
    at = {n: [curve[min(n, len(curve)) - 1] for curve in curves] for n in marks}
    return Standing(
        policy=policy, marks=tuple(_mark(n, values) for n, values in at.items()), finals=tuple(at[marks[-1]])
    )


def _mark(evaluations: int, values: Sequence[float]) -> Mark:
    """Percentile bootstrap; a single seed, or equal values, leave nothing to resample."""
    import numpy as np
    from scipy.stats import bootstrap

    mean = float(np.mean(values))
    if len(values) < 2 or len(set(values)) == 1:
        return Mark(evaluations=evaluations, mean=mean, low=mean, high=mean)
    found = bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, confidence_level=CONFIDENCE, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return Mark(evaluations=evaluations, mean=mean, low=float(found.low), high=float(found.high))
