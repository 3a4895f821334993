"""What tells the policies apart."""

import random

import pytest
from pydantic import ValidationError

from kernelevolve.policies.base import Plan
from kernelevolve.policies.best_of_n import BestOfN
from kernelevolve.policies.greedy import Greedy
from kernelevolve.policies.population import Population
from kernelevolve.policies.random import Random
from kernelevolve.schema import CompileError, Lineage, Parent, Unsettled
from kernelevolve.testing.records import a_candidate, a_failed, a_measurement, a_passed, a_triaged


def outcome(number, speedup=1.5, *, change="draft", purpose="search"):
    candidate = a_candidate(lineage=Lineage(change=change, origin=f"kernel {number}"))
    evaluation = a_passed(candidate, speedup, purpose=purpose) if speedup else a_failed(candidate, purpose=purpose)
    return Parent(candidate=candidate, evaluation=evaluation)


def asked_for(policy, count=400):
    return [policy.ask() for _ in range(count)]


def test_random_changes_every_passed_candidate_about_equally_often():
    policy = Random(Random.Config(), seed=1, changes=("rewrite",))
    passed = [outcome(n, 1.0 + n) for n in range(4)]
    for step, told in enumerate(passed):
        policy.tell(step, told)
    parents = [plan.parents[0] for plan in asked_for(policy) if plan.parents]
    shares = [parents.count(p) / len(parents) for p in passed]
    assert all(0.15 < share < 0.35 for share in shares)


def test_random_keeps_drafting_at_its_share():
    policy = Random(Random.Config(drafts=0.5), seed=1, changes=("rewrite",))
    policy.tell(0, outcome(0))
    assert 0.4 < [plan.change for plan in asked_for(policy)].count("draft") / 400 < 0.6


def test_random_can_not_be_told_to_stop_drafting():
    with pytest.raises(ValidationError):
        Random.Config(drafts=0.0)


def test_greedy_drafts_first_even_when_something_has_passed():
    policy = Greedy(Greedy.Config(drafts=3, draft_share=0.0), seed=0, changes=("rewrite",))
    policy.tell(0, outcome(0))
    assert [plan.change for plan in asked_for(policy, 4)] == ["draft", "draft", "rewrite", "rewrite"]


def test_greedy_goes_on_from_the_best_by_the_lower_end_of_the_interval():
    policy = Greedy(Greedy.Config(drafts=3, draft_share=0.0), seed=0, changes=("rewrite",))
    steady, other = outcome(0, 2.0), outcome(1).candidate
    unsure = a_passed(other, measurements=(a_measurement(2.1, low=1.2, high=3.5),))
    policy.tell(0, steady)
    policy.tell(1, Parent(candidate=other, evaluation=unsure))
    assert policy.ask().change == "draft"
    assert all(plan.parents == (steady,) for plan in asked_for(policy))


def test_greedy_leaves_a_lucky_candidate_once_it_was_measured_again():
    policy = Greedy(Greedy.Config(drafts=1, draft_share=0.0), seed=0, changes=("rewrite",))
    honest, lucky = outcome(0, 1.5), outcome(1, 3.0)
    policy.tell(0, honest)
    policy.tell(1, lucky)
    assert policy.ask().parents == (lucky,)
    policy.tell(1, outcome(1, 1.1, purpose="confirm"))
    assert policy.ask().parents == (honest,)
    assert policy.statistics()["best_fitness"] == honest.evaluation.fitness


def test_a_confirmation_stands_against_the_search_measurement_told_again():
    policy = Greedy(Greedy.Config(drafts=1, draft_share=0.0), seed=0, changes=("rewrite",))
    policy.tell(0, outcome(0, 3.0))
    confirmed = outcome(0, 1.1, purpose="confirm")
    policy.tell(0, confirmed)
    policy.tell(0, outcome(0, 3.0))
    assert policy.ask().parents == (confirmed,)


def test_best_of_n_learns_nothing():
    policy = BestOfN(BestOfN.Config(), seed=0, changes=("rewrite", "crossover"))
    for step in range(5):
        policy.tell(step, outcome(step, 2.0))
    assert {plan.change for plan in asked_for(policy)} == {"draft"}
    assert policy.statistics()["passed"] == 5


def test_statistics_count_what_was_told():
    policy = Random(Random.Config(), seed=0, changes=("rewrite",))
    assert policy.statistics() == {"told": 0, "passed": 0, "failed": 0, "confirmed": 0}
    policy.tell(0, outcome(0, 1.5))
    policy.tell(1, outcome(1, 2.0, change="rewrite"))
    policy.tell(2, outcome(2, None))
    policy.tell(3, outcome(3, None, change="rewrite"))
    statistics = policy.statistics()
    assert (statistics["passed"], statistics["failed"], statistics["draft_share"]) == (2, 2, 0.5)
    assert statistics["best_fitness"] == pytest.approx(2.0 * 0.98)


def test_a_repair_is_never_asked_of_a_candidate_that_works():
    policy = Random(Random.Config(), seed=0, changes=("repair",))
    policy.tell(0, outcome(0))
    assert {plan.change for plan in asked_for(policy)} == {"draft"}


def triaged(number, estimated_us):
    candidate = a_candidate(lineage=Lineage(origin=f"kernel {number}"))
    return Parent(candidate=candidate, evaluation=a_triaged(candidate, estimated_us))


def test_greedy_follows_the_best_estimate_where_nothing_is_measured():
    policy = Greedy(Greedy.Config(drafts=1, draft_share=0), seed=1, changes=("rewrite",))
    told = [triaged(0, None), triaged(1, 30.0), triaged(2, 20.0), triaged(3, 25.0)]
    assert [policy.ask().change] == ["draft"]
    for step, (outcome_, best) in enumerate(zip(told, (told[0], told[1], told[2], told[2]), strict=True)):
        policy.tell(step, outcome_)
        assert policy.ask().parents == (best,)
    assert policy.statistics()["estimated_best_us"] == pytest.approx(20.0)
    assert "best_fitness" not in policy.statistics()


def test_no_estimate_outranks_a_measurement():
    policy = Greedy(Greedy.Config(drafts=1, draft_share=0), seed=1, changes=("rewrite",))
    assert policy.ask().change == "draft"
    policy.tell(0, triaged(0, 1e-3))
    measured = outcome(1, 0.5)
    policy.tell(1, measured)
    assert policy.ask().parents == (measured,)


@pytest.mark.parametrize(("finding", "asked"), [("unsettled", False), ("compile", True)])
def test_a_time_that_was_lost_in_noise_is_nothing_to_repair(finding, asked):
    said = {"message": "m", "advice": "a"}
    finding = Unsettled(**said) if finding == "unsettled" else CompileError(**said)
    policy = Random(Random.Config(), seed=0, changes=("rewrite", "repair"))
    for step in range(4):
        candidate = a_candidate(lineage=Lineage(origin=f"kernel {step}"))
        policy.tell(step, Parent(candidate=candidate, evaluation=a_failed(candidate, "time", diagnostics=(finding,))))
    assert any(policy.ask().change == "repair" for _ in range(30)) == asked


def test_constants_that_do_not_build_together_are_nothing_to_repair():
    for change, repaired in (("retune", False), ("rewrite", True)):
        policy = Random(Random.Config(), seed=0, changes=("rewrite", "repair"))
        for step in range(4):
            candidate = a_candidate(lineage=Lineage(origin=f"kernel {step}", change=change))
            policy.tell(step, Parent(candidate=candidate, evaluation=a_failed(candidate, "build")))
        assert any(policy.ask().change == "repair" for _ in range(30)) == repaired


def test_a_crossover_takes_no_parent_that_has_nothing_to_give():
    """None that is half as fast or slower, and none that differs in constants only: another change is made."""
    parent, near, far, same = (a_candidate(files={"main.cpp": f"// {name}"}) for name in ("a", "b", "c", "a"))
    same = same.model_copy(update={"tunables": {"BLOCK": 64}})
    lonely = Population(("crossover", "rewrite"))
    lonely.tell(0, Parent(candidate=parent, evaluation=a_passed(parent, 3.0)))
    lonely.tell(1, Parent(candidate=far, evaluation=a_passed(far, 0.5)))
    fast = lonely.best
    plans = [lonely.breed(random.Random(seed), fast) for seed in range(40)]
    assert {plan.change for plan in plans} == {"rewrite"}
    lonely.tell(2, Parent(candidate=near, evaluation=a_passed(near, 2.5)))
    lonely.tell(3, Parent(candidate=same, evaluation=a_passed(same, 2.9)))
    plans = [lonely.breed(random.Random(seed), fast) for seed in range(40)]
    joined = {plan.parents[1].candidate.digest for plan in plans if plan.change == "crossover"}
    assert joined == {near.digest}


def test_a_crossover_takes_no_parent_that_is_behind_on_every_workload():
    def timed(name, *times):
        found = [
            a_measurement(2.0, workload=f"n{n}", candidate_us=us, baseline_us=2 * us) for n, us in enumerate(times)
        ]
        candidate = a_candidate(files={"main.cpp": f"// {name}"})
        return Parent(candidate=candidate, evaluation=a_passed(candidate, measurements=tuple(found)))

    parent, behind, ahead = timed("a", 10.0, 20.0), timed("b", 11.0, 20.0), timed("c", 14.0, 19.0)
    population = Population(("crossover", "rewrite"))
    for step, other in enumerate((parent, behind)):
        population.tell(step, other)
    assert {population.breed(random.Random(seed), parent).change for seed in range(20)} == {"rewrite"}
    population.tell(2, ahead)
    plans = [population.breed(random.Random(seed), parent) for seed in range(40)]
    joined = {plan.parents[1].candidate.digest for plan in plans if plan.change == "crossover"}
    assert joined == {ahead.candidate.digest}


def test_the_same_two_are_joined_no_more_than_twice_and_one_after_the_other():
    """Whichever comes first: answers to the same question at the same time, or a third one, would be much alike."""
    one, other = (a_candidate(files={"main.cpp": f"// {name}"}) for name in "ab")
    pair = Population(("crossover", "rewrite"))
    for step, candidate in enumerate((one, other)):
        pair.tell(step, Parent(candidate=candidate, evaluation=a_passed(candidate, 2.0)))
    parents = [pair[one.digest], pair[other.digest]]

    def changes():
        return {pair.breed(random.Random(seed), parents[0]).change for seed in range(20)}

    for step in (2, 3):
        assert "crossover" in changes()
        pair.ask(step, Plan("crossover", tuple(parents)))
        assert changes() == {"rewrite"}, "one is under way"
        lineage = Lineage(change="crossover", parents=(other.digest, one.digest))
        child = a_candidate(tunables={"BLOCK": 48 + step}, lineage=lineage)
        pair.tell(step, Parent(candidate=child, evaluation=a_passed(child, 0.1)))
    assert changes() == {"rewrite"}
