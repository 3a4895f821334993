"""The landscapes are what they say, and are played fairly."""

import math
import random
from collections import Counter

import pytest

from kernelevolve.languages.cpp import Cpp
from kernelevolve.policies.structure import Structures
from kernelevolve.schema import Candidate
from kernelevolve.testing.mutators import Move, blind, heedful
from kernelevolve.testing.numeric_landscapes import landscape, landscapes, read, ridge, trap
from kernelevolve.testing.play import play

RIDGE_PEAK = (0.8, -0.6, 0.3, 1.1, -0.9, 0.5, -0.2, 0.7)


def test_the_optimum_of_the_ridge_is_one_and_its_start_is_low():
    assert ridge(RIDGE_PEAK) == 1.0
    assert 0.1 < ridge(landscape("ridge").start) < 0.25


@pytest.mark.parametrize(("family", "height"), [(0, 0.5), (1, 0.4), (2, 0.7), (3, 1.0)])
def test_each_family_of_the_trap_has_its_height(family, height):
    rng = random.Random(family)
    best = max(trap((float(family), *(rng.uniform(-1, 1) for _ in range(7)))) for _ in range(3000))
    assert 0.8 * height < best <= height


@pytest.mark.parametrize("name", landscapes())
def test_every_landscape_lies_between_nothing_and_one_and_is_written_as_a_kernel(name):
    ground, rng = landscape(name), random.Random(name)
    point = ground.start
    for step in range(50):
        assert 0 < ground.score(point) <= 1
        files = ground.write(point, step)
        assert Cpp().admit(files) == ()
        assert read(files) == pytest.approx(point, abs=1e-6)
        point = blind(ground, point, rng)


def structure_of(ground, point, step=0):
    return Structures().of(Candidate(language="cpp", files=ground.write(point, step)))


def test_a_family_shows_in_the_source_unless_it_is_hidden():
    here, there = (0.0,) * 8, (3.0,) + (0.0,) * 7
    shown, hidden = landscape("trap"), landscape("trap-hidden")
    assert structure_of(shown, here).apart(structure_of(shown, there)) > 0.5
    assert structure_of(hidden, here).apart(structure_of(hidden, there)) == 0
    assert structure_of(hidden, here).distance(structure_of(hidden, there)) == pytest.approx(2.0)


def test_a_restyled_source_looks_new_each_time():
    ground = landscape("ridge-restyled")
    assert structure_of(ground, ground.start, 1).apart(structure_of(ground, ground.start, 2)) > 0.5


def test_a_tenth_of_the_blind_children_jump_to_a_random_family():
    rng, ground = random.Random(0), landscape("trap")
    families = Counter(ground.family(blind(ground, ground.start, rng)) for _ in range(4000))
    assert 0.06 < 1 - families[0] / 4000 < 0.09
    assert all(0.015 < families[f] / 4000 < 0.035 for f in (1, 2, 3))


def test_the_heedful_mutator_goes_where_it_helped_and_away_from_where_it_hurt():
    ground = landscape("ridge-heedful")
    here = ground.start
    helped = [Move((-1.0, *here[1:]), here, 0.3)]
    hurt = [Move(here, (-1.0, *here[1:]), -0.3)]

    def rises(history, siblings):
        rng = random.Random(1)
        steps = [heedful(ground, here, rng, history, siblings)[0] for _ in range(1000)]
        return sum(step > 0 for step in steps) / sum(step != 0 for step in steps)

    assert 0.4 < rises([], []) < 0.6
    assert rises(helped, []) > 0.8
    assert rises([], hurt) > 0.8


def test_a_search_is_the_same_for_the_same_seed_and_another_for_another():
    one, again, other = (play(landscape("trap-noisy"), "adaptive", seed, 60, lanes=4) for seed in (1, 1, 2))
    assert one == again
    assert one.best != other.best


def test_noise_is_seen_by_the_policy_and_not_counted_in_its_favour():
    ground = landscape("ridge-noisy")
    played = play(ground, "greedy", 0, 80)
    scores = [ground.score(read(o.candidate.files)) for o in played.told]
    errors = [math.log(o.evaluation.speedup / 2 / s) for o, s in zip(played.told, scores, strict=True)]
    assert max(map(abs, errors)) > 0.05
    assert all(value in scores or value == 0 for value in played.best)
    assert played.confirmations > 3


def test_a_failed_child_may_be_repaired():
    played = play(landscape("ridge-fragile"), "random", 0, 120)
    outcomes = Counter((o.candidate.lineage.change, o.evaluation.outcome) for o in played.told)
    assert outcomes["rewrite", "failed"] > outcomes["rewrite", "passed"]
    assert outcomes["repair", "passed"] > 0
