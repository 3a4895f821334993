"""Time two runners in turns, from outside.

The clock never runs in a candidate's process. One call's time is the difference between a batch of several calls
and a batch of one, divided by the number of calls between them, so that the round trip cancels out. Candidate and
baseline take turns in the same machine state, the idle one held still; the ratio of each pair of turns is one
sample, and `statistics` says what the samples prove.
"""

import random
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from scipy.stats import mannwhitneyu

from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.harness.statistics import interval, moved, verdict
from kernelevolve.schema import Cheat, TimingPlan, Unsettled, Verdict

FEWEST_PAIRS = 4
"""Pairs of turns before a candidate is given up as hopeless, however slow the machine."""

HOPELESS = 0.9
"""Where the whole interval is below this, nobody needs to know it more exactly."""

MOST_EXTRA = 12
"""Further batches of a turn whose difference is not positive yet."""

_UNGUESSED = random.SystemRandom()


class Verify(Protocol):
    """Compares the outputs of one slot, or a random part of them; raises `RunnerFailed` where they are wrong."""

    def __call__(self, runner: Runner, slot: int, /, *, whole: bool) -> None:
        """Look at it now."""


class Inputs(Protocol):
    """The inputs of the workload that is timed."""

    def change(self, slot: int) -> None:
        """Change a part of one slot, and the truth with it."""

    def pressure(self) -> AbstractContextManager[None]:
        """While this holds, other processes want the cores."""

    def touch(self, slot: int, *, same: bool) -> bool:
        """Write single elements of one slot for now: other values, or the `same` ones.

        False where that can't be done between two calls.
        """

    def restore(self) -> None:
        """Undo every touch."""


CHANGED = 0.25
"""Share of the pairs of turns before which something is changed; before the second pair always."""

PROBED = 0.25
"""Share of the pairs of turns before which the candidate takes one whose inputs are touched before every call, with new
values or with the same; before the second pair with new ones, before the third with the same."""

PROBE_SHARE = 2
"""One in so many of a turn's batches are made in such a turn: what it looks for is no small difference."""

RECURRING = 1.5
"""Times as long as on touched inputs of the same values that calls on new ones may take."""

FEWEST_PROBES = 3
"""Turns of either kind before a kernel is acquitted: one may have shared its core."""

PROBES = (0, 4, 12)
"""Further turns of either kind that a suspicion is tested with."""

CHANCE = 0.001
"""Of accusing a kernel that is only noisy, at any of the looks (Mann and Whitney's test)."""

DOUBT = 0.05
"""The same at which a suspicion that couldn't be settled voids the measurement."""


@dataclass
class Side:
    """One of the two that are timed: a function of a runner on a workload."""

    runner: Runner
    function: int
    workload: int
    slots: int
    verify: Verify | None = None
    """compares a slot's outputs after a turn; None for baselines, which are checked beforehand"""
    graph: bool = False
    """replay captured calls"""
    batch: int = 2
    repeats: int = 1
    kernel_us: float = 0.0
    """total time spent in its calls"""
    turns: list[float] = field(default_factory=list)
    """microseconds a call, one for each turn"""
    singles: list[float] = field(default_factory=list)
    """microseconds of the quickest batch of one, one for each turn"""
    batches: list[float] = field(default_factory=list)
    """the same of the larger batches"""
    touch: Callable[[int], object] | None = None
    """what is done to the inputs of a slot before every call, for now"""

    def call(self, slots: list[int]) -> float:
        """Poison, call, and the microseconds until it was back."""
        for slot in slots:
            if self.touch is not None:
                self.touch(slot)
            self.runner.outputs.poison(self.workload, slot)
        took = self.runner.call(self.workload, slots, self.function, graph=self.graph)
        self.kernel_us += took
        return took

    def size(self, turn_us: float) -> float:
        """Warm up, and choose batch and repeats so that a turn holds about `turn_us` of kernel time.

        Returns a first, rough time of a call, microseconds.
        """
        for slot in range(min(self.slots, 2)):
            self.call([slot])
        order = list(range(self.slots))
        one = min(self.call([slot]) for slot in order[:3])
        if one < turn_us:
            # Twice, and never more than a single call takes: a batch that shared its core would choose a small one.
            one = min(one, *(self.call(order) / len(order) for _ in range(2)))
        self.batch = int(min(self.slots, max(2, turn_us / 2 // one)))
        least = 3 if one < turn_us else 1
        self.repeats = int(max(least, turn_us // (one * (self.batch + 1))))
        return one

    def turn(self, seed: int) -> None:
        """One turn: one warm-up call, then batches of many and of one.

        The least of each is taken: what the machine adds to a batch is never negative. Whichever batch of many is the
        quickest so far is verified, in a call that nobody can guess: the batch that counts is one that was looked at.
        Where inputs are touched before every call, which counts for no time, one batch of all is looked at, and the
        warm-up is a call on every slot: whoever keeps answers has last seen some of them with other values.
        """
        self.runner.resume()
        rng = random.Random(seed)
        order = list(range(self.slots))
        self.call(order[:1] if self.touch is None else order)
        many: list[float] = []
        one: list[float] = []
        when = _UNGUESSED.randint(1, self.repeats)
        # Where a batch of one took as long as one of many, something else ran meanwhile: look again, within bounds.
        while len(many) < self.repeats or (min(many) <= min(one) and len(many) < self.repeats + MOST_EXTRA):
            rng.shuffle(order)
            many.append(self.call(order[: self.batch]))
            one.append(self.call(order[-1:]))
            looked_at = many[-1] <= min(many) if self.touch is None else len(many) == when
            if looked_at:
                self._look(_UNGUESSED.choice([s for s in order[: self.batch] if s != order[-1]]))
        self.turns.append((min(many) - min(one)) / (self.batch - 1))
        self.singles.append(min(one))
        self.batches.append(min(many))
        if self.touch is None:
            self._look(order[-1])
        self.runner.stop()

    def look_again(self, slot: int, inputs: Inputs) -> None:
        """Change a slot's inputs where they lie, and verify the answer to a call that has to share its cores.

        Work that is left to a thread when `run` returns is not done then.
        """
        inputs.change(slot)
        self.runner.resume()
        with inputs.pressure():
            self.call([slot])
            self._look(slot, whole=True)
        self.runner.stop()

    def _look(self, slot: int, *, whole: bool = False) -> None:
        """Verify a slot as the last batch has left it: the process is held still meanwhile."""
        if self.verify is not None:
            self.runner.hold()
            self.verify(self.runner, slot, whole=whole)
            self.runner.resume()


@dataclass(frozen=True)
class Timing:
    """Candidate against baseline: microseconds, and the speed-up with its interval."""

    candidate_us: float
    baseline_us: float
    speedup: float
    low: float
    high: float
    confidence: float
    pairs: int
    verdict: Verdict


def measure(
    candidate: Side, baseline: Side, plan: TimingPlan, rng: random.Random, inputs: Inputs | None = None
) -> Timing:
    """Take turns until the verdict is settled or the plan is used up.

    Where the baseline becomes slower or faster meanwhile and the candidate does not, all of it is measured once more.
    Raises `RunnerFailed` where that happens again, where noise hides the time, and where an answer is wrong.
    Now and then an input is changed where it lies, and the next answer to it is verified: whatever was kept from
    earlier calls, by address or by a glance at the content, is wrong then. In some turns, which count for nothing else,
    every call finds new values in its inputs, in others the same ones written again: whoever keeps answers by the
    whole of their inputs takes longer in the first.
    """
    for _ in range(2):
        turns = _Turns(candidate, baseline, plan, rng, inputs)
        timing = turns.timing()
        if not moved(*zip(*usable(candidate.turns, baseline.turns), strict=True)):
            turns.no_input_recurs()
            return timing
    raise RunnerFailed(
        Unsettled(
            message="the baseline does not take the same time at the end of the measurement as at its beginning",
            advice="leave nothing running when run returns; if nothing is, measure on a quieter machine",
        )
    )


class _Turns:
    """Candidate and baseline by turns, which of them goes first by turns too."""

    def __init__(
        self, candidate: Side, baseline: Side, plan: TimingPlan, rng: random.Random, inputs: Inputs | None
    ) -> None:
        self._candidate, self._baseline, self._plan, self._rng, self._inputs = candidate, baseline, plan, rng, inputs
        self._probes: dict[bool, list[float]] = {True: [], False: []}
        """times of a call on touched inputs: of the same values, or of new ones"""
        for side, other in ((candidate, baseline), (baseline, candidate)):
            if other.runner is not side.runner:
                other.runner.stop()
            side.runner.resume()
            side.size(plan.turn_us)
        for seen in (candidate.turns, candidate.singles, candidate.batches, baseline.turns):
            seen.clear()

    def timing(self) -> Timing:
        """Take turns until the verdict is settled, or the plan is used up."""
        mine, theirs, plan = self._candidate.turns, self._baseline.turns, self._plan
        deadline = time.monotonic() + plan.seconds
        while True:
            self._pair()
            late = time.monotonic() > deadline and len(mine) >= FEWEST_PAIRS
            last = len(mine) >= plan.max_pairs
            if last or ((late or len(mine) >= plan.min_pairs) and telling(mine, theirs)):
                timing = judge(mine, theirs, plan)
                if last or settled(timing, plan, late=late):
                    return timing

    def no_input_recurs(self) -> None:
        """Raises `RunnerFailed` where calls take longer on inputs that were never there before.

        A machine that was busy in the wrong moment looks the same: a suspicion is tested on more turns, and what
        can't be told then is no result.
        """
        chance = 1.0
        for more in PROBES:
            kinds = [same for same, seen in self._probes.items() for _ in range(max(more, FEWEST_PROBES - len(seen)))]
            self._rng.shuffle(kinds)
            for same in kinds:
                self._probe(same=same)
            if self._longer() <= RECURRING:
                return
            chance = mannwhitneyu(self._probes[False], self._probes[True], alternative="greater").pvalue
            if chance < CHANCE / len(PROBES):
                break
        if chance > DOUBT:
            return
        found = f"calls take {self._longer():.2f} times as long on inputs that they have not seen before"
        if chance >= CHANCE / len(PROBES):
            raise RunnerFailed(Unsettled(message=f"{found}, or so it seems", advice="measure on a quieter machine"))
        raise RunnerFailed(
            Cheat(
                message=found,
                advice="do the work of each call in that call: keep no answers from earlier ones",
                name="answers kept by input",
                workload=self._candidate.runner.name(self._candidate.workload),
            )
        )

    def _longer(self) -> float:
        new, same = self._probes[False], self._probes[True]
        return statistics.median(new) / statistics.median(same) if new and same else 1.0

    def _pair(self) -> None:
        number = len(self._candidate.turns)
        if self._inputs is not None and (number == 1 or self._rng.random() < CHANGED):
            self._candidate.look_again(self._rng.randrange(self._candidate.slots), self._inputs)
        if number in (1, 2) or self._rng.random() < PROBED:
            self._probe(same=number == 2 if number in (1, 2) else self._rng.random() < 0.5)
        sides = (self._candidate, self._baseline)
        seed = self._rng.getrandbits(32)  # the same inputs in the same order for both
        for side in sides if number % 2 else reversed(sides):
            side.turn(seed)

    def _probe(self, *, same: bool) -> None:
        """A turn of the candidate's on touched inputs, kept apart."""
        inputs, side = self._inputs, self._candidate
        if inputs is None or not inputs.touch(0, same=same):
            return
        side.touch, repeats = partial(inputs.touch, same=same), side.repeats
        side.repeats = -(-repeats // PROBE_SHARE)
        try:
            side.turn(self._rng.getrandbits(32))
        finally:
            side.touch, side.repeats = None, repeats
            inputs.restore()
        took, _, _ = side.turns.pop(), side.singles.pop(), side.batches.pop()
        if took > 0:
            self._probes[same].append(took)


def settled(timing: Timing, plan: TimingPlan, *, late: bool = False) -> bool:
    """Whether another pair of turns is worth nothing, or (`late`) more than the time that it takes."""
    if timing.high < HOPELESS:
        return True
    if timing.confidence < plan.confidence:
        return False
    exact = (timing.high - timing.low) / 2 <= plan.half_width * timing.speedup
    return late or (timing.verdict != "ambiguous" and (exact or timing.pairs >= plan.clear_pairs))


def usable(candidate: list[float], baseline: list[float]) -> list[tuple[float, float]]:
    """Pairs of turns in which both sides took some time."""
    return [(c, b) for c, b in zip(candidate, baseline, strict=True) if c > 0 and b > 0]


def telling(candidate: list[float], baseline: list[float]) -> bool:
    """Whether noise has swallowed at most a quarter of the pairs."""
    return len(usable(candidate, baseline)) * 4 >= len(candidate) * 3


def judge(candidate: list[float], baseline: list[float], plan: TimingPlan) -> Timing:
    """Median of the paired ratios, its interval, and the verdict. Raises `RunnerFailed` where noise hides the time.

    A turn of zero or less carries no information: it is left out, and more than a few of them void the measurement.
    """
    pairs = usable(candidate, baseline)
    if not telling(candidate, baseline):
        raise RunnerFailed(
            Unsettled(
                message="the time of a call is lost in the noise of the machine",
                advice="measure on a quieter machine; a call that takes no time at all does no work",
            )
        )
    ratios = [b / c for c, b in pairs]
    found = interval(ratios, plan.min_pairs, plan.max_pairs, plan.confidence)
    return Timing(
        candidate_us=statistics.median(c for c, _ in pairs),
        baseline_us=statistics.median(b for _, b in pairs),
        speedup=statistics.median(ratios),
        low=found.low,
        high=found.high,
        confidence=found.covers,
        pairs=len(pairs),
        verdict=verdict(found, plan.confidence),
    )
