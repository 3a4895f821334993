"""What a policy keeps is really used: islands, grid, tree, niches; and what holds for every policy."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelevolve.catalog import POLICIES
from kernelevolve.policies.base import Plan
from kernelevolve.schema import Lineage, Parent
from kernelevolve.testing.numeric_landscapes import landscape, read
from kernelevolve.testing.play import Player, play
from kernelevolve.testing.records import a_candidate, a_failed, a_measurement, a_passed

SELECTIVE = ("adaptive", "islands", "map-elites", "tree")


def made(name, *, seed=0, changes=("rewrite", "crossover", "repair"), **config):
    kind = POLICIES.load(name)
    return kind(kind.Config(**config), seed=seed, changes=changes)


def child_of(plan, number):
    parents = tuple(parent.candidate.digest for parent in plan.parents)
    return Lineage(change=plan.change, parents=parents, origin=f"kernel {number}")


def measured(candidate, speedup, low):
    found = a_measurement(speedup, low=low, high=speedup**2 / low, verdict="faster")
    return a_passed(candidate, measurements=(found,))


def outcome(number, speedup=1.5, *, purpose="search", lineage=None):
    candidate = a_candidate(lineage=lineage or Lineage(origin=f"kernel {number}"))
    said = a_passed(candidate, speedup, purpose=purpose) if speedup else a_failed(candidate, purpose=purpose)
    return Parent(candidate=candidate, evaluation=said)


@pytest.mark.parametrize("name", POLICIES.names())
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_whatever_is_asked_and_told_in_whatever_order_parents_are_sound(name, data):
    policy = made(name, seed=data.draw(st.integers(0, 3)))
    plans, latest, lost, told = [], {}, set(), 0
    for _ in range(data.draw(st.integers(10, 40))):
        action = data.draw(st.sampled_from(["ask", "pass", "fail", "confirm", "refute", "nothing"]))
        if action == "ask":
            plans.append(policy.ask())
            digests = [parent.candidate.digest for parent in plans[-1].parents]
            assert len(set(digests)) == len(digests)
            for parent in plans[-1].parents:
                assert latest[parent.candidate.digest] == parent
                assert (parent.evaluation.outcome == "failed") == (plans[-1].change == "repair")
                assert parent.candidate.digest not in lost
        elif action in ("pass", "fail"):
            speedup = data.draw(st.floats(0.1, 10)) if action == "pass" else None
            found = outcome(told, speedup, lineage=child_of(plans.pop() if plans else Plan("draft"), told))
            latest[found.candidate.digest] = found
            policy.tell(told, found)
            told += 1
        elif action == "nothing":
            policy.tell(told, None)
            told += 1
        elif latest:
            chosen = latest[data.draw(st.sampled_from(sorted(latest)))].candidate
            said = a_passed(chosen, data.draw(st.floats(0.1, 10)), purpose="confirm")
            if action == "refute":
                said = a_failed(chosen, purpose="confirm")
                lost.add(chosen.digest)
            else:
                lost.discard(chosen.digest)
            latest[chosen.digest] = Parent(candidate=chosen, evaluation=said)
            policy.tell(0, latest[chosen.digest])


@pytest.mark.parametrize("name", ("random", *SELECTIVE))
def test_equal_parents_share_the_work(name):
    policy = made(name, changes=("rewrite",))
    source = a_candidate()
    equals = [
        Parent(candidate=c, evaluation=a_passed(c, 1.5))
        for c in (source.model_copy(update={"tunables": {"BLOCK": value}}) for value in (8, 9))
    ]
    for step, parent in enumerate(equals):
        policy.tell(step, parent)
    uses, step = Counter(), len(equals)
    while sum(uses.values()) < 200:
        plan = policy.ask()
        lineage = child_of(plan, step)
        uses.update(lineage.parents)
        policy.tell(step, outcome(step, 0.5 if plan.parents else None, lineage=lineage))
        step += 1
    shares = [uses[parent.candidate.digest] for parent in equals]
    assert min(shares) > 0.25 * sum(shares)


def test_kernels_that_can_not_be_told_apart_share_the_work():
    """What a search measured briefly has the lower end of a wide interval, and is no worse for that."""
    policy = made("adaptive", changes=("rewrite",))
    source = a_candidate()
    surely, perhaps, slower = (source.model_copy(update={"tunables": {"BLOCK": value}}) for value in (8, 9, 10))
    policy.tell(0, Parent(candidate=surely, evaluation=measured(surely, 1.5, 1.45)))
    policy.tell(1, Parent(candidate=perhaps, evaluation=measured(perhaps, 1.5, 1.2)))
    policy.tell(2, Parent(candidate=slower, evaluation=measured(slower, 1.4, 1.2)))
    uses, step = Counter(), 3
    while sum(uses.values()) < 100:
        lineage = child_of(policy.ask(), step)
        uses.update(lineage.parents)
        policy.tell(step, outcome(step, 0.5 if lineage.parents else None, lineage=lineage))
        step += 1
    assert uses[perhaps.digest] > 0.25 * sum(uses.values())
    assert uses[surely.digest] > 0.25 * sum(uses.values())
    assert uses[slower.digest] < 0.1 * sum(uses.values())


@pytest.mark.parametrize("name", SELECTIVE)
def test_asks_under_way_count_as_uses(name):
    policy = made(name, changes=("rewrite",))
    first, second = outcome(0, 1.5), outcome(1, 1.5)
    policy.tell(0, first)
    policy.tell(1, second)
    asked = Counter(plan.parents[0].candidate.digest for plan in (policy.ask() for _ in range(60)) if plan.parents)
    assert min(asked[first.candidate.digest], asked[second.candidate.digest]) > 0.25 * sum(asked.values())


@pytest.mark.parametrize("name", SELECTIVE)
def test_cold_starts_go_on_when_everything_gets_better(name):
    policy = made(name, changes=("rewrite",))
    changes = Counter()
    for step in range(300):
        plan = policy.ask()
        changes[plan.change if plan.memory != "clean" else "cold"] += step >= 150
        policy.tell(step, outcome(step, 1.0 + step / 100, lineage=child_of(plan, step)))
    assert changes["cold"] >= 3
    assert changes["rewrite"] > changes["cold"]


@pytest.mark.parametrize("name", SELECTIVE)
@pytest.mark.parametrize("setting", ["drafts", "cold"])
def test_cold_starts_can_not_be_switched_off(name, setting):
    if setting in POLICIES.load(name).Config.model_fields:
        with pytest.raises(ValueError, match="greater than"):
            made(name, **{setting: 0})


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), islands=st.integers(2, 6))
def test_every_island_is_populated_and_its_best_migrate(seed, islands):
    policy = made("islands", seed=seed, changes=("rewrite",), islands=islands, migrate_every=20)
    statistics = Player(landscape("trap"), policy, seed).play(100, lanes=8).statistics
    assert all(statistics[f"island_{number}"] > 1 for number in range(islands))
    assert statistics["migrations"] >= islands


def test_without_migration_islands_know_nothing_of_each_other():
    policy = made("islands", changes=("rewrite",), islands=2, migrate_every=1000, drafts=0.01)
    good = outcome(0, 9.0)
    policy.tell(0, good)
    policy.tell(1, outcome(1, 1.0))
    asked = [policy.ask().parents for _ in range(40)]
    assert all(good not in parents for parents in asked[1::2])
    assert any(good in parents for parents in asked[0::2])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_grid_has_more_than_one_cell_and_breeds_from_more_than_one(seed):
    policy = made("map-elites", seed=seed, changes=("rewrite",))
    played = Player(landscape("trap"), policy, seed).play(100)
    assert played.statistics["cells"] > 3
    parents = {o.candidate.lineage.parents for o in played.told if o.candidate.lineage.parents}
    assert len(parents) > 5


def test_members_of_one_family_of_tunables_fill_several_cells():
    policy = made("map-elites", changes=("retune",))
    for step, block in enumerate((8, 16, 32, 64, 128)):
        candidate = a_candidate(tunables={"BLOCK": block})
        policy.tell(step, Parent(candidate=candidate, evaluation=a_passed(candidate)))
    assert policy.statistics()["cells"] > 1


def test_the_tree_grows_deep_where_climbing_pays_and_keeps_its_drafts():
    policy = made("tree", changes=("rewrite",))
    played = Player(landscape("ridge"), policy, 0).play(150)
    parents = {o.candidate.digest: next(iter(o.candidate.lineage.parents), None) for o in played.told}

    def depth(digest):
        return 0 if digest is None else 1 + depth(parents[digest])

    assert max(map(depth, parents)) > 8
    assert played.statistics["drafts"] > 5


def test_adaptive_leaves_a_hill_that_is_climbed():
    played = play(landscape("trap"), "adaptive", seed=1, evals=200)
    families = Counter(round(read(o.candidate.files)[0]) % 4 for o in played.told[60:])
    assert played.statistics["niches"] == 4
    assert all(families[family] > 2 for family in range(4))


def test_adaptive_stays_with_a_hill_that_it_still_climbs():
    policy = made("adaptive", changes=("rewrite",))
    played = Player(landscape("ridge"), policy, 3).play(80)
    best, from_best = None, 0
    for told in played.told:
        from_best += best is not None and told.candidate.lineage.parents == (best[1],)
        speedup = told.evaluation.speedup
        if best is None or speedup > best[0]:
            best = (speedup, told.candidate.digest)
    assert from_best > 0.6 * len(played.told)
