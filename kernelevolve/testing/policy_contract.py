"""What every search policy has to keep to: derive a test class, and say how yours is made.

::

    class TestMyPolicy(PolicyContract):
        def make(self, *, seed=0, changes=("rewrite",)):
            return MyPolicy(MyPolicy.Config(), seed=seed, changes=changes)
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import ClassVar

from kernelevolve.policies.base import Plan, Policy
from kernelevolve.schema import Candidate, Change, Lineage, Parent, Purpose
from kernelevolve.testing.records import a_candidate, a_failed, a_measurement, a_passed, a_triaged

_ASKS = 60
"""enough for every branch of a policy that draws at random"""


def _candidate(number: int) -> Candidate:
    return a_candidate(lineage=Lineage(origin=f"kernel {number}"))


def _passed(number: int, speedup: float = 1.5, purpose: Purpose = "search") -> Parent:
    candidate = _candidate(number)
    return Parent(candidate=candidate, evaluation=a_passed(candidate, speedup, purpose=purpose))


def _failed(number: int, purpose: Purpose = "search") -> Parent:
    candidate = _candidate(number)
    return Parent(candidate=candidate, evaluation=a_failed(candidate, purpose=purpose))


def _ambiguous(number: int, purpose: Purpose = "search") -> Parent:
    candidate = _candidate(number)
    unsure = a_measurement(1.1, low=0.8, high=1.5, verdict="ambiguous")
    return Parent(candidate=candidate, evaluation=a_passed(candidate, purpose=purpose, measurements=(unsure,)))


def _outcomes(count: int) -> list[Parent]:
    """Every third fails, the others get faster and slower by turns."""
    return [_failed(n) if n % 3 == 0 else _passed(n, 1.0 + (n * 7 % 5) / 10) for n in range(count)]


def _finite(statistics: dict[str, float]) -> bool:
    return all(math.isfinite(value) for value in statistics.values())


class PolicyContract:
    """The suite. `make` has to be overridden."""

    only_drafts: ClassVar[bool] = False
    """whether the policy never asks for anything else"""

    def make(self, *, seed: int = 0, changes: tuple[Change, ...] = ("rewrite",)) -> Policy:
        """A policy that has been told nothing."""
        raise NotImplementedError

    def after(self, outcomes: Iterable[Parent], *, seed: int = 0) -> Policy:
        """A policy that was asked and told by turns."""
        policy = self.make(seed=seed)
        for step, outcome in enumerate(outcomes):
            policy.ask()
            policy.tell(step, outcome)
        return policy

    def test_it_drafts_while_nothing_is_known(self) -> None:
        """Many asks may come before the first tell."""
        policy = self.make()
        assert {policy.ask() for _ in range(_ASKS)} == {Plan("draft")}

    def test_it_drafts_while_everything_fails(self) -> None:
        """A population without a passed candidate has no parents."""
        policy = self.after(_failed(n) for n in range(10))
        assert {policy.ask() for _ in range(_ASKS)} == {Plan("draft")}

    def test_parents_are_candidates_that_passed(self) -> None:
        """Neither a failed candidate nor one from outside the population is changed, where repair isn't possible."""
        outcomes = _outcomes(20)
        passed = [o for o in outcomes if o.evaluation.outcome == "passed"]
        policy = self.after(outcomes)
        assert all(parent in passed for _ in range(_ASKS) for parent in policy.ask().parents)

    def test_a_failed_candidate_is_only_repaired_and_only_a_few_times(self) -> None:
        """A repair has one parent, which failed; nothing else has one that did."""
        outcomes = _outcomes(20)
        failed = {o.candidate.digest for o in outcomes if o.evaluation.outcome == "failed"}
        policy = self.make(changes=("rewrite", "repair"))
        for step, outcome in enumerate(outcomes):
            policy.tell(step, outcome)
        repaired = Counter[str]()
        for plan in [policy.ask() for _ in range(8 * _ASKS)]:
            digests = [parent.candidate.digest for parent in plan.parents]
            assert len(digests) == 1 if plan.change == "repair" else failed.isdisjoint(digests)
            repaired.update(digests if plan.change == "repair" else ())
        assert set(repaired) <= failed
        assert all(count <= 2 for count in repaired.values())

    def test_what_failed_its_confirmation_is_not_repaired(self) -> None:
        """It was right once by luck; where the flaw is nobody knows."""
        policy = self.make(changes=("repair",))
        policy.tell(0, _passed(0, 3.0))
        policy.tell(0, _failed(0, purpose="confirm"))
        assert {policy.ask() for _ in range(_ASKS)} == {Plan("draft")}

    def test_an_ambiguous_candidate_breeds_once_it_was_measured_again(self) -> None:
        """Whatever the second look says, it is the best that there is."""
        policy = self.after([_ambiguous(0)])
        assert {policy.ask() for _ in range(_ASKS)} == {Plan("draft")}
        again = _ambiguous(0, "confirm")
        policy.tell(0, again)
        assert any(policy.ask().parents == (again,) for _ in range(_ASKS)) or self.only_drafts
        assert _finite(policy.statistics())

    def test_cold_starts_never_vanish(self) -> None:
        """Drafts, and changes that remember nothing, however well the rest goes."""
        policy = self.after([_passed(n, 1.0 + n / 10) for n in range(40)])
        plans = [policy.ask() for _ in range(10 * _ASKS)]
        assert any(plan.memory == "clean" for plan in plans)
        assert any(plan.change == "draft" for plan in plans)

    def test_a_step_that_came_to_nothing_is_over(self) -> None:
        """Its answer never became a candidate: that is told as None, and leaves no trace but the step's number."""
        first, resumed = self.make(seed=5), self.make(seed=5)
        for step, outcome in enumerate(_outcomes(12)):
            first.ask()
            first.tell(step, None if step % 4 == 1 else outcome)
            resumed.tell(step, None if step % 4 == 1 else outcome)
        assert [first.ask() for _ in range(_ASKS)] == [resumed.ask() for _ in range(_ASKS)]

    def test_a_plan_is_a_draft_without_parents_or_a_change_that_the_proposer_makes(self) -> None:
        """Crossover has two different parents, every other change has one."""
        policy = self.make(changes=("rewrite", "crossover"))
        for step, outcome in enumerate(_outcomes(12)):
            policy.tell(step, outcome)
        for plan in [policy.ask() for _ in range(_ASKS)]:
            assert plan.change in ("draft", "rewrite", "crossover")
            digests = {parent.candidate.digest for parent in plan.parents}
            assert len(digests) == len(plan.parents) == {"draft": 0, "rewrite": 1, "crossover": 2}[plan.change]

    def test_a_proposer_that_only_drafts_is_asked_for_drafts(self) -> None:
        """There may be no change at all to choose from."""
        policy = self.make(changes=())
        for step, outcome in enumerate(_outcomes(8)):
            policy.tell(step, outcome)
        assert {policy.ask() for _ in range(_ASKS)} == {Plan("draft")}

    def test_equal_seeds_and_calls_give_equal_plans(self) -> None:
        """Asks and tells in any mixture."""

        def play(policy: Policy) -> list[Plan]:
            plans = [policy.ask() for _ in range(3)]
            for step, outcome in enumerate(_outcomes(20)):
                policy.tell(step, outcome)
                plans.append(policy.ask())
            return plans

        assert play(self.make(seed=7)) == play(self.make(seed=7))

    def test_a_resumed_run_goes_on_where_it_stopped(self) -> None:
        """Telling the finished steps again, without asking, leads to the same next plans."""
        outcomes = _outcomes(15)
        first, resumed = self.after(outcomes, seed=3), self.make(seed=3)
        for step, outcome in enumerate(outcomes):
            resumed.tell(step, outcome)
        assert [first.ask() for _ in range(_ASKS)] == [resumed.ask() for _ in range(_ASKS)]

    def test_a_parent_comes_with_its_latest_measurement(self) -> None:
        """A confirmation corrects a lucky measurement."""
        lucky, corrected = _passed(0, 3.0), _passed(0, 1.1, purpose="confirm")
        policy = self.after([lucky])
        policy.tell(0, corrected)
        for _ in range(_ASKS):
            assert policy.ask().parents in ((), (corrected,))

    def test_a_candidate_that_fails_its_confirmation_is_no_parent(self) -> None:
        """Right once is not right."""
        policy = self.after([_passed(0, 3.0)])
        policy.tell(0, _failed(0, purpose="confirm"))
        assert {policy.ask() for _ in range(_ASKS)} == {Plan("draft")}

    def test_what_certification_says_breeds_nothing(self) -> None:
        """Held-out workloads never steer a search."""
        policy = self.make()
        policy.tell(0, _passed(0, 3.0, purpose="certify"))
        policy.tell(1, _passed(1, 3.0, purpose="confirm"))
        assert {policy.ask() for _ in range(_ASKS)} == {Plan("draft")}

    def test_where_nothing_is_measured_a_triaged_candidate_may_be_a_parent(self) -> None:
        """With an estimate or without one; a failed one still may not."""
        outcomes = [
            Parent(candidate=_candidate(n), evaluation=a_triaged(_candidate(n), 10.0 + n if n % 2 else None))
            for n in range(8)
        ]
        policy = self.after([*outcomes, _failed(8)])
        for _ in range(_ASKS):
            assert all(parent in outcomes for parent in policy.ask().parents)
        assert _finite(policy.statistics())

    def test_statistics_are_finite_at_any_time(self) -> None:
        """With nothing told, with failures only, and later."""
        policy = self.make()
        assert _finite(policy.statistics())
        for step, outcome in enumerate(_outcomes(10)):
            policy.ask()
            policy.tell(step, outcome)
            assert _finite(policy.statistics())
