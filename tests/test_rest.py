"""A speed-up over a baseline that was not at rest flatters: it is known by what the baseline took elsewhere."""

import pytest

from kernelevolve.rest import AtRest, surest
from kernelevolve.schema import Parent
from kernelevolve.standing import MOST_LOOKS, Standing
from kernelevolve.testing.records import a_calibration, a_candidate, a_measurement, a_passed, a_run_spec

KERNEL, OTHER = a_candidate(), a_candidate(tunables={"BLOCK": 32})


def measured(speedup, baseline_us, *, of=KERNEL, purpose="confirm", rest_us=None):
    found = a_measurement(speedup, baseline_us=baseline_us, baseline_rest_us=rest_us)
    return a_passed(of, purpose=purpose, measurements=(found,))


def test_the_least_that_a_baseline_took_anywhere_is_what_it_takes_at_rest():
    rest = AtRest()
    rest.calibrated(a_calibration())
    before = rest.us["n1024"]["eager"]
    rest.saw(measured(1.5, before * 2, rest_us=before / 2))
    assert rest.us["n1024"]["eager"] == before / 2


def test_what_is_marked_already_does_not_flatter():
    rest = AtRest()
    rest.saw(measured(1.5, 10.0))
    assert rest.flatter(measured(3.0, 20.0))
    assert not rest.flatter(measured(1.5, 20.0, rest_us=10.0))
    assert not rest.flatter(measured(1.5, 12.0))


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_looks_one_that_does_not_flatter_counts_however_narrow_the_others(order):
    slow, quiet = measured(3.0, 20.0), measured(1.5, 10.0)
    assert surest((slow, quiet)[::order]) is quiet


def test_a_best_that_was_measured_in_a_slow_moment_is_looked_at_again_as_soon_as_that_is_known():
    standing = Standing(a_run_spec())

    def told(number, of, said):
        standing.count(said)
        standing.look_at(number, Parent(candidate=of, evaluation=said))

    told(0, KERNEL, measured(3.0, 20.0))
    assert standing.doubtful() is None
    told(1, OTHER, measured(1.6, 10.0, of=OTHER, purpose="search"))
    assert standing.doubtful() == (0, KERNEL)
    standing.looking()
    told(0, KERNEL, measured(1.5, 10.0, rest_us=10.0))
    assert standing.best_passed.speedup == 1.5
    assert standing.doubtful() is None
    told(1, OTHER, measured(1.6, 10.0, of=OTHER))
    assert standing.best.candidate == OTHER


def test_a_best_is_not_looked_at_for_ever():
    standing = Standing(a_run_spec())
    standing.rest.saw(measured(1.0, 10.0))
    standing.look_at(0, Parent(candidate=KERNEL, evaluation=measured(3.0, 20.0)))
    for _ in range(MOST_LOOKS):
        assert standing.doubtful() is not None
        standing.looking()
    assert standing.doubtful() is None
