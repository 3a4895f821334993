"""The built-in policies keep to the contract of their seam."""

from kernelevolve.catalog import POLICIES
from kernelevolve.policies.adaptive import Adaptive
from kernelevolve.policies.base import Policy
from kernelevolve.policies.best_of_n import BestOfN
from kernelevolve.policies.greedy import Greedy
from kernelevolve.policies.islands import Islands
from kernelevolve.policies.map_elites import MapElites
from kernelevolve.policies.random import Random
from kernelevolve.policies.tree import Tree
from kernelevolve.schema import Change
from kernelevolve.testing.policy_contract import PolicyContract


class TestRandom(PolicyContract):
    def make(self, *, seed: int = 0, changes: tuple[Change, ...] = ("rewrite",)) -> Policy:
        return Random(Random.Config(), seed=seed, changes=changes)


class TestGreedy(PolicyContract):
    def make(self, *, seed: int = 0, changes: tuple[Change, ...] = ("rewrite",)) -> Policy:
        return Greedy(Greedy.Config(), seed=seed, changes=changes)


class TestBestOfN(PolicyContract):
    only_drafts = True

    def make(self, *, seed: int = 0, changes: tuple[Change, ...] = ("rewrite",)) -> Policy:
        return BestOfN(BestOfN.Config(), seed=seed, changes=changes)


class TestIslands(PolicyContract):
    def make(self, *, seed: int = 0, changes: tuple[Change, ...] = ("rewrite",)) -> Policy:
        return Islands(Islands.Config(), seed=seed, changes=changes)


class TestMapElites(PolicyContract):
    def make(self, *, seed: int = 0, changes: tuple[Change, ...] = ("rewrite",)) -> Policy:
        return MapElites(MapElites.Config(), seed=seed, changes=changes)


class TestTree(PolicyContract):
    def make(self, *, seed: int = 0, changes: tuple[Change, ...] = ("rewrite",)) -> Policy:
        return Tree(Tree.Config(), seed=seed, changes=changes)


class TestAdaptive(PolicyContract):
    def make(self, *, seed: int = 0, changes: tuple[Change, ...] = ("rewrite",)) -> Policy:
        return Adaptive(Adaptive.Config(), seed=seed, changes=changes)


SUITES = (TestRandom, TestGreedy, TestBestOfN, TestIslands, TestMapElites, TestTree, TestAdaptive)


def test_every_policy_of_the_catalog_is_under_contract():
    covered = {suite().make().name for suite in SUITES}
    assert covered == set(POLICIES.names())
    assert all(POLICIES.load(name).name == name for name in covered)
