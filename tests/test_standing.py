"""What is looked at a second time."""

import pytest

from kernelevolve.schema import Parent
from kernelevolve.standing import Standing
from kernelevolve.testing.records import a_candidate, a_measurement, a_passed, a_run_spec


def said(candidate, speedup, low, high, purpose):
    found = a_measurement(speedup, low=low, high=high, verdict="faster")
    return a_passed(candidate, measurements=(found,), purpose=purpose)


@pytest.mark.parametrize(("speedup", "wanted"), [(1.9, False), (2.05, True), (2.5, True)])
def test_who_is_faster_than_the_best_by_the_best_estimate_gets_a_second_look(speedup, wanted):
    """Also where the intervals overlap: the best of several that are alike is found among those that were confirmed."""
    standing = Standing(a_run_spec())
    best, other = a_candidate(), a_candidate(tunables={"BLOCK": 48})
    standing.look_at(0, Parent(candidate=best, evaluation=said(best, 2.0, 1.95, 2.1, "confirm")))
    assert standing.wants_confirmation(said(other, speedup, speedup * 0.95, speedup * 1.05, "search")) is wanted
