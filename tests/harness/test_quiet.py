"""A baseline that takes longer than at rest is known for what it is."""

import pytest

from kernelevolve.harness.quiet import Quiet, cautious
from kernelevolve.testing.records import a_measurement


def test_the_least_that_was_seen_counts_until_it_is_forgotten() -> None:
    quiet = Quiet()
    for took_us in (12.0, 10.0, 11.0):
        quiet.saw("n1024", "eager", took_us)
    assert quiet.rest_us("n1024", "eager") == 10.0
    assert quiet.rest_us("n1024", "compiled") is None
    quiet.forget("n1024", "eager")
    assert quiet.rest_us("n1024", "eager") is None


@pytest.mark.parametrize(("rest_us", "disturbed"), [(None, False), (10.0, False), (12.0, False), (9.0, True)])
def test_a_baseline_is_disturbed_from_a_third_slower_on(rest_us: float | None, *, disturbed: bool) -> None:
    assert a_measurement(baseline_us=12.5, baseline_rest_us=rest_us).disturbed == disturbed


def test_what_a_speedup_over_a_disturbed_baseline_is_worth_is_counted_from_the_baseline_at_rest() -> None:
    found = cautious(a_measurement(3.0, baseline_us=20.0, baseline_rest_us=10.0), 0.99)
    assert (found.speedup, found.low, found.high) == pytest.approx((1.5, 1.47, 3.06))
    assert found.verdict == "faster"
    lost = cautious(a_measurement(1.5, baseline_us=20.0, baseline_rest_us=10.0), 0.99)
    assert lost.verdict == "ambiguous"
    assert lost.disturbed
