"""Verdicts are wrong no more often than they say, however often one looks and however many are compared."""

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import quantile_test

from kernelevolve.harness.statistics import PLACEMENT, Interval, interval, moved, ranks, verdict
from kernelevolve.schema import TimingPlan, Verdict

PLAN = TimingPlan()

# --- the interval ---


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("n", [12, 25, 40])
def test_a_single_look_gives_the_exact_binomial_interval(n: int, confidence: float) -> None:
    rng = random.Random(n)
    ratios = [rng.lognormvariate(0.0, 0.3) for _ in range(n)]
    found = interval(ratios, n, n, confidence)
    right = quantile_test(ratios, p=0.5).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((right.low / (1 + PLACEMENT), right.high * (1 + PLACEMENT)))


@pytest.mark.parametrize(("first", "most", "confidence"), [(4, 16, 0.9), (8, 16, 0.99), (9, 14, 0.95), (1, 16, 0.5)])
def test_all_looks_together_miss_the_median_no_more_often_than_they_may(
    first: int, most: int, confidence: float
) -> None:
    """Every way in which ratios can lie above and below their median, each as likely as any other."""
    allowed, missed = ranks(first, most, confidence), 0
    for tosses in itertools.product((0, 1), repeat=most):
        above = itertools.accumulate(tosses)
        missed += any(min(k, n - k) <= allowed[n - 1] for n, k in enumerate(above, start=1))
    assert 0 < missed / 2**most <= 1 - confidence


def test_looking_until_it_looks_wrong_succeeds_rarely() -> None:
    rng, trials, missed = random.Random(5), 1500, 0
    for _ in range(trials):
        ratios = [rng.lognormvariate(0.0, 0.5) for _ in range(PLAN.max_pairs)]
        looks = (interval(ratios[:n], 8, PLAN.max_pairs, 0.95) for n in range(8, PLAN.max_pairs + 1))
        missed += any(not found.low * (1 + PLACEMENT) <= 1.0 <= found.high / (1 + PLACEMENT) for found in looks)
    assert missed / trials <= 0.05 + 0.017  # three standard errors


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=7))
def test_too_few_samples_give_their_range_and_admit_how_little_it_covers(ratios: list[float]) -> None:
    found = interval(ratios, PLAN.min_pairs, PLAN.max_pairs, 0.99)
    assert (found.low, found.high) == (min(ratios) / (1 + PLACEMENT), max(ratios) * (1 + PLACEMENT))
    assert found.covers == max(0.0, 0.99 - 2.0 ** (1 - len(ratios)))


def test_an_interval_that_no_look_was_planned_for_proves_nothing() -> None:
    unplanned = interval([1.5] * 8, 8, PLAN.max_pairs, 0.99)
    assert verdict(unplanned, 0.99) == "ambiguous", "eight of a kind are rare enough, but not beside all later looks"
    assert verdict(interval([1.5] * 9, 8, PLAN.max_pairs, 0.99), 0.99) == "faster"


@given(st.integers(1, 12), st.integers(12, 60), st.floats(0.5, 0.9999))
def test_longer_series_never_leave_out_fewer(first: int, most: int, confidence: float) -> None:
    found = ranks(first, most, confidence)
    assert list(found) == sorted(found)
    assert all(n - 2 * (outside + 1) >= 0 for n, outside in enumerate(found, start=1))


# --- the verdict ---


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.1, 1.3, "faster"),
        (1.001, 1.5, "faster"),
        (0.7, 0.9, "slower"),
        (0.7, 0.999, "slower"),
        (0.99, 1.01, "same"),
        (1.001, 1.01, "same"),
        (0.985, 0.999, "same"),
        (0.9, 1.1, "ambiguous"),
        (1.0, 1.1, "ambiguous"),
        (0.9, 1.0, "ambiguous"),
        (0.98, 1.01, "ambiguous"),
        (0.99, 1.02, "ambiguous"),
    ],
)
def test_a_verdict_says_what_the_whole_interval_says(low: float, high: float, expected: str) -> None:
    assert verdict(Interval(low, high, 0.99), 0.99) == expected


def test_too_few_samples_make_nothing_faster_or_the_same() -> None:
    assert verdict(Interval(2.9, 3.1, 0.875), 0.99) == "ambiguous"
    assert verdict(Interval(0.99, 1.01, 0.875), 0.99) == "ambiguous"
    assert verdict(Interval(0.3, 0.4, 0.875), 0.99) == "slower"


# --- the rule as a whole, on a machine that is made up ---


def a_machine(rng: random.Random, speedup: float, noise: float) -> Iterator[float]:
    """Ratios of one trial: processes that differ a little, noise, and now and then a turn that is far off."""
    here = speedup * rng.uniform(1 - PLACEMENT, 1 + PLACEMENT)
    while True:
        yield here * rng.lognormvariate(0.0, noise) * (rng.choice([0.4, 3.0]) if rng.random() < 0.05 else 1.0)


def decided(ratios: Iterator[float]) -> Verdict:
    """Look after every pair until a verdict is there, as greedily as any rule could."""
    seen = list(itertools.islice(ratios, PLAN.min_pairs - 1))
    for ratio in itertools.islice(ratios, PLAN.max_pairs - len(seen)):
        seen.append(ratio)
        found = verdict(interval(seen, PLAN.min_pairs, PLAN.max_pairs, PLAN.confidence), PLAN.confidence)
        if found != "ambiguous":
            return found
    return "ambiguous"


@pytest.mark.parametrize("noise", [0.003, 0.015, 0.1])
def test_a_kernel_is_hardly_ever_faster_than_itself(noise: float) -> None:
    rng, trials = random.Random(11), 1500
    wins = sum(decided(a_machine(rng, 1.0, noise)) == "faster" for _ in range(trials))
    assert wins / trials <= 0.005 + 0.0055  # three standard errors


@pytest.mark.parametrize(("slowed", "noise"), [(1.03, 0.01), (1.1, 0.04)])
def test_a_slower_kernel_is_found_to_be_slower(slowed: float, noise: float) -> None:
    rng, trials = random.Random(7), 300
    found = sum(decided(a_machine(rng, 1 / slowed, noise)) == "slower" for _ in range(trials))
    assert found / trials >= 0.95


# --- drift ---


def turns(rng: random.Random, n: int, *, before: float, after: float, noise: float = 0.02) -> list[float]:
    level = [before] * (n // 2) + [after] * (n - n // 2)
    return [us * rng.lognormvariate(0.0, noise) for us in level]


@pytest.mark.parametrize("n", [12, 32])
def test_a_baseline_that_gets_slower_for_itself_is_noticed(n: int) -> None:
    rng = random.Random(n)
    for factor in (0.8, 1.2, 2.0):
        steady, changed = turns(rng, n, before=100, after=100), turns(rng, n, before=100, after=100 * factor)
        assert moved(steady, changed)


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.3])
def test_noise_and_a_machine_that_slows_down_for_both_are_no_drift(noise: float) -> None:
    rng, trials = random.Random(3), 500
    for after in (100, 160):
        fired = sum(
            moved(*(turns(rng, 24, before=100, after=after, noise=noise) for _ in range(2))) for _ in range(trials)
        )
        assert fired / trials <= 0.01


def test_a_drift_that_is_within_the_noise_of_machines_voids_nothing() -> None:
    rng = random.Random(1)
    steady, changed = turns(rng, 24, before=100, after=100, noise=0.001), turns(rng, 24, before=100, after=102)
    assert not moved(steady, changed)
