"""Time two runners in turns, from outside.

The clock never runs in a candidate's process. One call's time is the difference between a batch of several calls
and a batch of one, divided by the number of calls between them, so that the round trip cancels out. Candidate and
baseline take turns in the same machine state, the idle one held still; the ratio of each pair of turns is one
sample, and the interval of their median is the exact binomial one (Hettmansperger and Sheather, 1986, without the
interpolation; scipy's `quantile_test`).
"""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from scipy.stats import quantile_test

from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.schema import TimingPlan, Unsettled, Verdict

SAME = 0.02
"""An interval that lies within 1 +- this is the verdict `same`."""

FEWEST_PAIRS = 4
"""Pairs of turns behind any verdict, however slow the machine."""

MOST_EXTRA = 12
"""Further batches of a turn whose difference is not positive yet."""

Verify = Callable[[Runner, int], None]
"""Compares the outputs of one slot; raises `RunnerFailed` where they are wrong."""

Disturb = Callable[[int], None]
"""Changes a part of one slot's inputs, and the truth with it."""

DISTURBED = 0.25
"""Share of the pairs of turns before which something is changed; before the second pair always."""


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

    def call(self, slots: list[int]) -> float:
        """Poison, call, and the microseconds until it was back."""
        for slot in slots:
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
            one = self.call(order) / len(order)
        self.batch = int(min(self.slots, max(2, turn_us / 2 // one)))
        least = 3 if one < turn_us else 1
        self.repeats = int(max(least, turn_us // (one * (self.batch + 1))))
        return one

    def turn(self, seed: int) -> None:
        """One turn: resume, one warm-up call, then batches of many and of one; the last outputs are verified.

        The least of each is taken: what the machine adds to a batch is never negative.
        """
        self.runner.resume()
        rng = random.Random(seed)
        order = list(range(self.slots))
        self.call(order[:1])
        many: list[float] = []
        one: list[float] = []
        # Where a batch of one took as long as one of many, something else ran meanwhile: look again, within bounds.
        while len(many) < self.repeats or (min(many) <= min(one) and len(many) < self.repeats + MOST_EXTRA):
            rng.shuffle(order)
            many.append(self.call(order[: self.batch]))
            one.append(self.call(order[-1:]))
        self.turns.append((min(many) - min(one)) / (self.batch - 1))
        if self.verify is not None:
            for slot in {order[-1], rng.choice(order[: self.batch])}:
                self.verify(self.runner, slot)
        self.runner.stop()


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
    candidate: Side, baseline: Side, plan: TimingPlan, rng: random.Random, disturb: Disturb | None = None
) -> Timing:
    """Take turns until the interval is narrow enough, the candidate clearly loses, or the plan is used up.

    Now and then `disturb` changes an input where it lies, and the next answer to it is verified: whatever was kept
    from earlier calls, by address or by a glance at the content, is wrong then.
    """
    for side, other in ((candidate, baseline), (baseline, candidate)):
        if other.runner is not side.runner:
            other.runner.stop()
        side.runner.resume()
        side.size(plan.turn_us)
    candidate.turns.clear()
    baseline.turns.clear()
    deadline = time.monotonic() + plan.seconds
    while True:
        if disturb is not None and (len(candidate.turns) == 1 or rng.random() < DISTURBED):
            _look_again(candidate, disturb, rng.randrange(candidate.slots))
        first, second = (candidate, baseline) if len(candidate.turns) % 2 else (baseline, candidate)
        seed = rng.getrandbits(32)  # the same inputs in the same order for both
        first.turn(seed)
        second.turn(seed)
        pairs = len(candidate.turns)
        spent = pairs >= plan.max_pairs or (pairs >= FEWEST_PAIRS and time.monotonic() > deadline)
        if spent or (pairs >= plan.min_pairs and telling(candidate.turns, baseline.turns)):
            timing = judge(candidate.turns, baseline.turns, plan.confidence)
            if spent or settled(timing, plan):
                return timing


def _look_again(side: Side, disturb: Disturb, slot: int) -> None:
    disturb(slot)
    side.runner.resume()
    side.call([slot])
    if side.verify is not None:
        side.verify(side.runner, slot)
    side.runner.stop()


def settled(timing: Timing, plan: TimingPlan) -> bool:
    """Whether another pair of turns is worth nothing."""
    if timing.pairs >= plan.max_pairs or timing.high < 0.9:
        return True
    return (timing.high - timing.low) / 2 <= plan.half_width * timing.speedup


def usable(candidate: list[float], baseline: list[float]) -> list[tuple[float, float]]:
    """Pairs of turns in which both sides took some time."""
    return [(c, b) for c, b in zip(candidate, baseline, strict=True) if c > 0 and b > 0]


def telling(candidate: list[float], baseline: list[float]) -> bool:
    """Whether noise has swallowed at most a quarter of the pairs."""
    return len(usable(candidate, baseline)) * 4 >= len(candidate) * 3


def judge(candidate: list[float], baseline: list[float], confidence: float) -> Timing:
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
    ratios = sorted(b / c for c, b in pairs)
    low, high, coverage = interval(ratios, confidence)
    return Timing(
        candidate_us=statistics.median(c for c, _ in pairs),
        baseline_us=statistics.median(b for _, b in pairs),
        speedup=statistics.median(ratios),
        low=low,
        high=high,
        confidence=coverage,
        pairs=len(pairs),
        verdict=verdict(low, high),
    )


def interval(ratios: list[float], confidence: float) -> tuple[float, float, float]:
    """Exact interval of the median, and its coverage: the range of all samples where there are too few of them."""
    found = quantile_test(ratios, p=0.5).confidence_interval(confidence)
    if found.low == found.low and found.high == found.high:  # neither is NaN
        return float(found.low), float(found.high), confidence
    return min(ratios), max(ratios), 1 - 2.0 ** (1 - len(ratios))


def verdict(low: float, high: float) -> Verdict:
    """What an interval of the speed-up says."""
    if low > 1 - SAME and high < 1 + SAME:
        return "same"
    if low > 1:
        return "faster"
    if high < 1:
        return "slower"
    return "ambiguous"
