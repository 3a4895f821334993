"""When a search ends, and what it says when nothing wins."""

import pytest

from kernelevolve.policies.stopping import Levers, Spent, stop
from kernelevolve.schema import Budgets, Lineage, Parent, StopRules
from kernelevolve.testing.records import a_candidate, a_failed, a_measurement, a_passed


def passed(speedup=1.5, *, roofline=None, workloads=1):
    return a_passed(
        speedup=speedup,
        purpose="confirm",
        measurements=tuple(a_measurement(speedup, workload=f"n{n}", roofline_share=roofline) for n in range(workloads)),
    )


def asked(rules=None, budgets=None, evals=10, *, best=None, stalled=0, **spent):
    spent = Spent(**{"evaluations": 0, **spent})
    return stop(rules or StopRules(), budgets or Budgets(), evals, spent=spent, best=best, stalled=stalled)


def test_a_run_without_rules_goes_on_to_its_last_evaluation():
    assert asked(best=passed(100.0, roofline=0.99), stalled=9, evaluations=9) is None
    assert asked(evaluations=10) == "budget"


@pytest.mark.parametrize(
    ("limit", "used"),
    [
        ({"usd": 1.5}, {"usd": 1.5}),
        ({"tokens": 100}, {"tokens": 101}),
        ({"device_seconds": 2.0}, {"device_seconds": 3}),
    ],
)
def test_each_budget_ends_a_run_and_is_named(limit, used):
    (name,) = limit
    assert asked(budgets=Budgets(**limit), **used) == name
    assert asked(budgets=Budgets(**limit)) is None


def test_a_speedup_counts_by_the_lower_end_of_the_interval():
    rules = StopRules(speedup=1.5)
    assert asked(rules, best=passed(1.5)) is None
    assert asked(rules, best=passed(1.6)) == "speedup"
    assert asked(rules, best=None) is None


def test_the_roofline_counts_over_all_workloads_and_only_where_it_is_known():
    rules = StopRules(roofline=0.9)
    assert asked(rules, best=passed(roofline=0.95, workloads=2)) == "roofline"
    assert asked(rules, best=passed(roofline=0.85)) is None
    assert asked(rules, best=passed(roofline=None)) is None


def test_a_stall_ends_a_run_even_before_anything_passed():
    assert asked(StopRules(stall=5), stalled=5) == "stall"
    assert asked(StopRules(stall=5), stalled=4) is None


def test_a_goal_that_is_reached_with_the_last_evaluation_is_what_the_run_ends_by():
    assert asked(StopRules(speedup=1.2), best=passed(1.5), evaluations=10) == "speedup"


def outcome(number, speedup, *, origin, change, purpose="search"):
    candidate = a_candidate(lineage=Lineage(origin=origin, change=change), tunables={"BLOCK": number})
    said = a_passed(candidate, speedup, purpose=purpose) if speedup else a_failed(candidate, purpose=purpose)
    return Parent(candidate=candidate, evaluation=said)


def test_nothing_wins_names_the_levers_that_were_tried_and_the_distance_to_the_roofline():
    levers = Levers()
    for told in (
        outcome(1, 0.8, origin="heap.cpp", change="draft"),
        outcome(2, 0.9, origin="heap.cpp", change="retune"),
        outcome(3, 0.95, origin="heap.cpp", change="retune"),
        outcome(4, None, origin="heap.cpp", change="retune"),
        outcome(5, None, origin="model", change="rewrite"),
        outcome(3, 0.94, origin="heap.cpp", change="retune", purpose="confirm"),
    ):
        levers.tell(told)
    best = passed(0.95, roofline=0.76)
    found = levers.verdict(best)
    assert (found.evaluated, found.passed) == (5, 3)
    assert [(lever.origin, lever.change, lever.tried, lever.passed) for lever in found.levers] == [
        ("heap.cpp", "retune", 3, 2),
        ("heap.cpp", "draft", 1, 1),
        ("model", "rewrite", 1, 0),
    ]
    assert found.levers[0].best_speedup == pytest.approx(0.95)
    assert found.levers[2].best_speedup is None
    assert (found.low, found.high) == pytest.approx(best.interval)
    assert found.roofline_share == pytest.approx(0.76)
    assert found.headroom == pytest.approx(1.25)


def test_a_best_that_may_only_be_faster_is_no_win():
    assert Levers().verdict(passed(1.01)) is not None
    assert Levers().verdict(passed(1.10)) is None


def test_nothing_wins_where_nothing_passed():
    levers = Levers()
    levers.tell(outcome(1, None, origin="heap.cpp", change="draft"))
    found = levers.verdict(None)
    assert (found.evaluated, found.passed, found.best_speedup, found.headroom) == (1, 0, None, None)
