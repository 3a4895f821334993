"""How long each question is measured, and how sure its answer has to be: one place for all timing plans.

A search compares many candidates, a certificate many workloads. Each gets Bonferroni's share of one chance of error, so
that the whole run, and the whole certificate, are as sure as one measurement.
"""

from kernelevolve.schema import TimingPlan

ERROR = 0.01
"""Chance that any confirmation of a run misses, and that any verdict of a certificate does."""

EVALUATION = TimingPlan(clear_pairs=40, max_pairs=40, half_width=0.02, seconds=10.0)
"""A single evaluation may take its time."""

_CONFIRMATION = TimingPlan(clear_pairs=24, max_pairs=40, half_width=0.03, seconds=4.0)
_CERTIFICATION = TimingPlan(min_pairs=12, clear_pairs=40, max_pairs=40, half_width=0.03, seconds=10.0)
_AGAIN = TimingPlan(min_pairs=12, clear_pairs=60, max_pairs=120, half_width=0.03, seconds=20.0)


def confirmation(candidates: int) -> TimingPlan:
    """A new best is looked at longer than others are, one of as many as the run's budget allows.

    While all confirmations hold, nothing is crowned that isn't faster: not the luckiest of many copies of the best.
    """
    return _shared(_CONFIRMATION, candidates)


def certification(workloads: int) -> tuple[TimingPlan, TimingPlan]:
    """The plan for this many workloads, and a longer one for those that it leaves ambiguous."""
    return _shared(_CERTIFICATION, 2 * workloads), _shared(_AGAIN, 2 * workloads)


def _shared(plan: TimingPlan, comparisons: int) -> TimingPlan:
    return plan.model_copy(update={"confidence": 1 - ERROR / max(1, comparisons)})
