"""Plays a policy on a numeric landscape, in the part of proposer, judge and search."""

import math
import random
from collections import deque
from dataclasses import dataclass

from kernelevolve.catalog import POLICIES
from kernelevolve.policies.base import Plan, Policy
from kernelevolve.schema import Candidate, Evaluation, Lineage, Measurement, Parent, Passed, Purpose
from kernelevolve.testing.mutators import Move, blind, heedful
from kernelevolve.testing.numeric_landscapes import NumericLandscape, Point, read
from kernelevolve.testing.records import a_failed, a_measurement, a_passed, a_target, an_environment

SPEEDUP = 2.0
"""of the optimum, over a baseline that is worth .5"""
_CONFIRMED_NOISE = 0.5
"""a second look is longer"""
_HALF_WIDTHS = 2.576
"""standard deviations to either end of a 99 % interval"""


@dataclass(frozen=True)
class Played:
    """How a search on a landscape went."""

    told: tuple[Parent, ...]
    """search evaluations, in the order of telling"""
    best: tuple[float, ...]
    """true score of the best after each of them, 0 while nothing passed; where there is noise, the best is the
    highest fitness that a second look confirmed"""
    confirmations: int
    statistics: dict[str, float]


class Player:
    """One search: makes children, judges them, takes second looks, and tells the policy."""

    def __init__(self, landscape: NumericLandscape, policy: Policy, seed: int) -> None:
        self._landscape, self._policy = landscape, policy
        self._seed = seed
        self._points: dict[str, Point] = {}
        self._origins: dict[str, tuple[str, ...]] = {}
        self._moves: dict[str, Move] = {}
        """by child; a draft has none"""
        self._children: dict[str, list[Move]] = {}
        self._logs: dict[str, float] = {}
        """logarithm of the speed-up as measured"""
        self._best: Passed | None = None
        self._true = 0.0
        self._confirmations = 0
        self._target, self._environment = a_target().digest, an_environment()

    def play(self, evals: int, lanes: int = 1) -> Played:
        """Search with `lanes` candidates under way."""
        told: list[Parent] = []
        best: list[float] = []
        under_way: deque[tuple[int, Candidate]] = deque()
        asked = 0
        while len(told) < evals:
            while asked < evals and len(under_way) < lanes:
                under_way.append((asked, self._propose(asked, self._policy.ask())))
                asked += 1
            step, candidate = under_way.popleft()
            outcome = Parent(candidate=candidate, evaluation=self._judge(step, candidate, "search"))
            self._tell(step, outcome)
            told.append(outcome)
            best.append(self._true)
        return Played(tuple(told), tuple(best), self._confirmations, self._policy.statistics())

    def _propose(self, step: int, plan: Plan) -> Candidate:
        rng = random.Random(f"{self._seed}/child/{step}")
        parent = plan.parents[0].candidate if plan.parents else None
        point = self._child(plan, rng) if step or parent else self._landscape.start
        lineage = Lineage(
            change=plan.change, parents=tuple(p.candidate.digest for p in plan.parents), origin=self._landscape.name
        )
        candidate = Candidate(language="cpp", files=self._landscape.write(point, step), lineage=lineage)
        self._points[candidate.digest] = read(candidate.files)
        return candidate

    def _child(self, plan: Plan, rng: random.Random) -> Point:
        if not plan.parents:
            return blind(self._landscape, self._landscape.start, rng)
        digest = plan.parents[0].candidate.digest
        point = self._points[digest]
        if plan.change == "repair":
            return point
        if plan.change == "crossover":
            other = self._points[plan.parents[1].candidate.digest]
            return tuple(rng.choice(pair) for pair in zip(point, other, strict=True))
        if not self._landscape.heedful:
            return blind(self._landscape, point, rng)
        history = self._history(digest) if plan.memory in ("inherit", "combine") else []
        siblings = self._children.get(digest, []) if plan.memory in ("siblings", "combine") else []
        return heedful(self._landscape, point, rng, history, siblings)

    def _history(self, digest: str) -> list[Move]:
        """The changes that led to a candidate, the last one first."""
        found: list[Move] = []
        while digest in self._moves and len(found) < 5:
            found.append(self._moves[digest])
            digest = self._origins[digest][0]
        return found

    def _judge(self, step: int, candidate: Candidate, purpose: Purpose) -> Evaluation:
        landscape, rng = self._landscape, random.Random(f"{self._seed}/{purpose}/{step}")
        repaired = candidate.lineage.change == "repair"
        fails = rng.random() < (0.5 if repaired else landscape.failures if step else 0.0)
        if purpose == "search" and landscape.failures and fails:
            return a_failed(candidate, target=self._target, environment=self._environment)
        noise = landscape.noise * (_CONFIRMED_NOISE if purpose == "confirm" else 1.0)
        luck = math.log(1.5) if purpose == "search" and rng.random() < landscape.lucky else 0.0
        speed = SPEEDUP * landscape.score(self._points[candidate.digest]) * math.exp(rng.gauss(0, noise) + luck)
        return a_passed(
            candidate, purpose=purpose, target=self._target, environment=self._environment,
            measurements=(_measured(speed, noise),),
        )  # fmt: skip

    def _tell(self, step: int, outcome: Parent) -> None:
        """As the search does: what might be the best, or settles nothing, gets a second look."""
        self._learn(step, outcome)
        said = outcome.evaluation
        if not isinstance(said, Passed):
            return
        if self._landscape.noise and (not said.settled or self._best is None or said.may_beat(self._best)):
            self._confirmations += 1
            said = self._judge(step, outcome.candidate, "confirm")
            assert isinstance(said, Passed)
            self._policy.tell(step, Parent(candidate=outcome.candidate, evaluation=said))
            self._logs[outcome.candidate.digest] = math.log(said.speedup)
        elif self._landscape.noise:
            return
        if self._best is None or said.fitness > self._best.fitness:
            self._best = said
            self._true = self._landscape.score(self._points[outcome.candidate.digest])

    def _learn(self, step: int, outcome: Parent) -> None:
        self._policy.tell(step, outcome)
        digest, lineage = outcome.candidate.digest, outcome.candidate.lineage
        passed = isinstance(outcome.evaluation, Passed)
        if isinstance(outcome.evaluation, Passed):
            self._logs[digest] = math.log(outcome.evaluation.speedup)
        self._origins[digest] = lineage.parents
        if lineage.parents and lineage.change != "repair":
            parent = lineage.parents[0]
            gain = self._logs[digest] - self._logs[parent] if passed else None
            move = Move(self._points[parent], self._points[digest], gain)
            self._moves[digest] = move
            self._children.setdefault(parent, []).append(move)


def _measured(speed: float, noise: float) -> Measurement:
    """One workload; the interval is as wide as the noise makes it."""
    width = math.exp(max(0.005, _HALF_WIDTHS * noise))
    low, high = speed / width, speed * width
    settled = "faster" if low > 1 else "slower" if high < 1 else "same" if width < 1.02 else "ambiguous"
    return a_measurement(speed, low=low, high=high, verdict=settled)


def play(landscape: NumericLandscape, policy: str, seed: int, evals: int, lanes: int = 1) -> Played:
    """A search by the policy of that name with its default settings. Raises `UnknownNameError`.

    Repairs are possible where there are failures.
    """
    kind = POLICIES.load(policy)
    changes = ("rewrite", "repair") if landscape.failures else ("rewrite",)
    return Player(landscape, kind(kind.Config(), seed=seed, changes=changes), seed).play(evals, lanes)
