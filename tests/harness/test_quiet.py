"""A baseline that takes longer than at rest is known for what it is."""

import pytest

from kernelevolve.harness.quiet import Quiet
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
