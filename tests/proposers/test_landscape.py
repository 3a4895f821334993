"""Searches of a landscape whose optimum is known. Seeds are fixed: a failure is a change, not bad luck."""

import math
from statistics import mean

import pytest

from kernelevolve.policies.greedy import Greedy
from kernelevolve.policies.random import Random
from kernelevolve.proposers.tuner import Tuner
from kernelevolve.schema import CompileError
from kernelevolve.testing.landscape import Landscape, a_seed

SPACE = {"BLOCK": (8, 16, 32, 64, 128, 256), "UNROLL": (1, 2, 4, 8), "TILE": (1, 2, 3, 4, 6, 8)}
HEIGHTS = {"a": 0.3, "b": 0.4, "c": 0.5, "d": 0.6, "fair": 0.8, "best": 1.0}


def smooth(origin, tunables):
    """At most 2, at BLOCK 64, UNROLL 4, TILE 3."""
    away = 0.05 * (math.log2(tunables["BLOCK"]) - 6) ** 2
    away += 0.1 * (math.log2(tunables["UNROLL"]) - 2) ** 2 + 0.1 * math.log2(tunables["TILE"] / 3) ** 2
    return 2.0 * HEIGHTS[origin] * math.exp(-away)


def with_a_cliff(origin, tunables):
    """Large tiles don't build, and the optimum is not far from the edge."""
    if tunables["BLOCK"] * tunables["TILE"] > 400:
        return CompileError(message="static assertion failed: the tile is too large", advice="choose others")
    return smooth(origin, tunables)


def best(landscape, policy, seed, evals, workers=1):
    policy = policy(policy.Config(), seed=seed, changes=Tuner.changes)
    told = landscape.explore(policy, Tuner(Tuner.Config(), seed=seed), evals=evals, workers=workers)
    assert len(told) == evals
    return max(o.evaluation.speedup for o in told if o.evaluation.outcome == "passed")


@pytest.mark.parametrize("speedup", [smooth, with_a_cliff])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_tuner_finds_the_optimum_of_three_tunables_in_forty_evaluations(speedup, workers):
    landscape = Landscape((a_seed("best", SPACE),), speedup)
    found = [best(landscape, Greedy, seed, 40, workers) for seed in range(6)]
    assert sum(f > 0.97 * 2.0 for f in found) >= 5  # a uniform draw of 40 gets there in about 2 of 3 seeds
    assert sum(f == pytest.approx(2.0) for f in found) >= 4  # and here in about 1 of 4


def test_greedy_beats_random_on_a_smooth_landscape():
    landscape = Landscape(tuple(a_seed(name, SPACE) for name in HEIGHTS), smooth)
    greedy, random = ([best(landscape, policy, seed, 40) for seed in range(6)] for policy in (Greedy, Random))
    assert mean(greedy) > 1.2 * mean(random)  # 1.4 over twenty seeds


def test_a_search_ends_when_the_landscape_is_used_up():
    landscape = Landscape((a_seed("fair", {**SPACE, "BLOCK": (64,), "TILE": (3,)}),), smooth)
    policy = Greedy(Greedy.Config(), seed=0, changes=Tuner.changes)
    assert len(landscape.explore(policy, Tuner(Tuner.Config(), seed=0), evals=40, workers=2)) == 4
