"""Policies side by side."""

import pytest

from kernelevolve.compare import best_after_each, compare
from kernelevolve.errors import UsageError
from kernelevolve.schema import Step
from kernelevolve.testing.records import a_candidate, a_failed, a_passed, a_proposal


def test_the_better_policy_comes_first_with_an_interval_that_holds_its_mean():
    curves = {"steady": [0.5, 0.6, 0.7], "hasty": [0.6, 0.6, 0.6]}
    found = compare("ridge", ["hasty", "steady"], range(4), 3, lambda p, s: [v + s / 100 for v in curves[p]])
    assert [s.policy for s in found.standings] == ["steady", "hasty"]
    last = found.standings[0].marks[-1]
    assert (last.evaluations, last.mean) == (3, pytest.approx(0.715))
    assert 0.70 <= last.low < last.mean < last.high <= 0.73
    assert found.standings[0].finals == pytest.approx((0.70, 0.71, 0.72, 0.73))


def test_a_search_that_ended_early_keeps_what_it_had():
    found = compare("ridge", ["short"], [0, 1], 30, lambda p, s: [0.1, 0.4])
    assert [(m.evaluations, m.mean, m.low, m.high) for m in found.standings[0].marks] == [
        (10, 0.4, 0.4, 0.4), (25, 0.4, 0.4, 0.4), (30, 0.4, 0.4, 0.4),
    ]  # fmt: skip


def test_a_search_without_an_evaluation_can_not_be_compared():
    with pytest.raises(UsageError, match="evaluated nothing"):
        compare("topk", ["greedy"], [0], 10, lambda p, s: [])


def a_step(number, evaluation, *confirmations):
    candidate = a_candidate()
    return Step(
        number=number, proposal=a_proposal(candidate), candidate=candidate, evaluation=evaluation,
        confirmations=confirmations,
    )  # fmt: skip


def test_a_run_is_worth_what_was_confirmed_and_never_less_than_its_baseline():
    lucky, kept = a_passed(speedup=9.0), a_passed(speedup=1.2, purpose="confirm")
    steps = [
        a_step(0, a_passed(speedup=0.5), a_passed(speedup=0.5, purpose="confirm")),
        a_step(2, lucky, kept),
        a_step(1, a_failed(a_candidate())),
        a_step(3, a_passed(speedup=1.1)),
        a_step(4, None),
    ]
    assert best_after_each(steps) == (1.0, 1.0, kept.fitness, kept.fitness)
