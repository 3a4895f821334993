"""What the clock's readings are made into: intervals that hold, verdicts that follow, turns that are fair."""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.harness.statistics import PLACEMENT, Interval, verdict
from kernelevolve.harness.timing import Side, Timing, judge, measure, settled
from kernelevolve.schema import Cheat, TimingPlan, Unsettled

# --- when it is enough ---


PLAN = TimingPlan(min_pairs=8, half_width=0.02, clear_pairs=16, max_pairs=24)


def a_timing(low: float, high: float, confidence: float = PLAN.confidence, pairs: int = 8) -> Timing:
    middle = (low + high) / 2
    said = verdict(Interval(low, high, confidence), PLAN.confidence)
    return Timing(1.0, middle, middle, low, high, confidence, pairs, said)


@pytest.mark.parametrize(
    ("timing", "late", "done"),
    [
        (a_timing(1.0, 1.5), False, False),
        (a_timing(1.0, 1.5), True, True),
        (a_timing(1.49, 1.51), False, True),
        (a_timing(1.49, 1.51, confidence=0.9), True, False),
        (a_timing(9.8, 10.2), False, True),
        (a_timing(9.0, 11.0), False, False),
        (a_timing(9.0, 11.0, pairs=16), False, True),
        (a_timing(0.95, 1.1, pairs=16), False, False),
        (a_timing(0.2, 0.6), False, True),
        (a_timing(0.2, 0.6, confidence=0.9), True, True),
        (a_timing(0.2, 0.95), False, False),
        (a_timing(0.98, 1.01), False, False),
        (a_timing(0.985, 1.01), False, True),
    ],
)
def test_measuring_ends_when_the_verdict_is_settled_or_time_is_up(timing: Timing, late: bool, done: bool) -> None:
    assert settled(timing, PLAN, late=late) is done


# --- readings to a result ---


def test_a_ratio_of_pairs_is_robust_to_a_machine_that_slows_down_for_both() -> None:
    slow = [1.0] * 6 + [3.0] * 6
    timing = judge([10 * s for s in slow], [20 * s for s in slow], TimingPlan())
    assert (timing.speedup, timing.verdict) == (2.0, "faster")
    assert (timing.low, timing.high) == pytest.approx((2.0 / (1 + PLACEMENT), 2.0 * (1 + PLACEMENT)))
    assert timing.pairs == 12


def test_a_few_turns_without_a_time_are_left_out() -> None:
    timing = judge([10.0] * 9 + [0.0, -3.0], [20.0] * 10 + [20.0], TimingPlan())
    assert (timing.pairs, timing.speedup, timing.candidate_us) == (9, 2.0, 10.0)


@pytest.mark.parametrize("lost", [[0.0] * 8, [-1.0] * 8, [10.0] * 5 + [0.0] * 3])
def test_a_time_that_is_lost_in_noise_is_no_result(lost: list[float]) -> None:
    for candidate, baseline in ((lost, [20.0] * 8), ([20.0] * 8, lost)):
        with pytest.raises(RunnerFailed) as caught:
            judge(candidate, baseline, TimingPlan())
        assert isinstance(caught.value.diagnostics[0], Unsettled)
        assert caught.value.diagnostics[0].advice


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0.1, 1e5), st.floats(0.1, 1e5)), min_size=1, max_size=32), st.floats(0.5, 0.999))
def test_a_result_lies_in_its_interval_and_turning_sides_turns_it_over(
    pairs: list[tuple[float, float]], confidence: float
) -> None:
    candidate, baseline, plan = [c for c, _ in pairs], [b for _, b in pairs], TimingPlan(confidence=confidence)
    there, back = judge(candidate, baseline, plan), judge(baseline, candidate, plan)
    assert there.low <= there.speedup <= there.high
    assert back.low == pytest.approx(1 / there.high)
    assert back.high == pytest.approx(1 / there.low)
    opposite = {"faster": "slower", "slower": "faster", "ambiguous": "ambiguous", "same": "same"}
    enough = there.confidence >= confidence
    if enough and abs(there.low - 1) > 0.03 and abs(there.high - 1) > 0.03:
        assert back.verdict == opposite[there.verdict]


# --- turns, on a runner that replays prescribed times ---


class ReplayedOutputs:
    def __init__(self) -> None:
        self.poisoned: list[int] = []

    def poison(self, _workload: int, slot: int) -> None:
        self.poisoned.append(slot)


class ReplayedRunner:
    """Takes as long for a batch as the test says: `round_trip + calls * call(n)` microseconds, n counts batches."""

    def __init__(self, call: Callable[[int], float], round_trip: float = 30.0) -> None:
        self.outputs = ReplayedOutputs()
        self.running = True
        self.batches: list[list[int]] = []
        self._call, self._round_trip = call, round_trip

    def call(self, _workload: int, slots: Sequence[int], _function: int, *, graph: bool) -> float:
        assert not graph
        assert self.running, "a runner that is held still can't be called"
        poisoned, self.outputs.poisoned = self.outputs.poisoned, []
        assert poisoned == list(slots), "every output holds poison before it is written"
        self.batches.append(list(slots))
        return self._round_trip + len(slots) * self._call(len(self.batches))

    def name(self, _workload: int) -> str:
        return "w"

    def stop(self) -> None:
        self.running = False

    def hold(self) -> None:
        self.running = False

    def resume(self) -> None:
        self.running = True


def a_side(runner: ReplayedRunner, slots: int = 16) -> Side:
    return Side(cast(Runner, runner), function=0, workload=0, slots=slots)


def timed(
    mine: Callable[[int], float], theirs: Callable[[int], float], plan: TimingPlan | None = None
) -> tuple[Timing, Side, Side]:
    sides = a_side(ReplayedRunner(mine)), a_side(ReplayedRunner(theirs))
    return measure(*sides, plan or TimingPlan(), random.Random(1)), *sides


@pytest.mark.parametrize("us", [0.5, 16.0, 900.0, 50_000.0])
def test_the_round_trip_cancels_out(us: float) -> None:
    timing, *_ = timed(lambda _: us, lambda _: 2 * us)
    assert timing.candidate_us == pytest.approx(us)
    assert timing.baseline_us == pytest.approx(2 * us)
    assert timing.speedup == pytest.approx(2)
    assert timing.verdict == "faster"


def test_equal_kernels_are_the_same() -> None:
    timing, *_ = timed(lambda _: 100.0, lambda _: 100.0)
    assert timing.verdict == "same"
    assert timing.pairs == TimingPlan().min_pairs


def test_noise_is_measured_longer_but_never_longer_than_planned() -> None:
    def noisy(seed: int) -> Callable[[int], float]:
        rng = random.Random(seed)
        drift = [rng.uniform(0.5, 2) for _ in range(10_000)]
        return lambda n: 100.0 * drift[n // 4]

    plan = TimingPlan(turn_us=500.0, max_pairs=15)
    timing, mine, _ = timed(noisy(1), noisy(2), plan)
    assert len(mine.turns) == plan.max_pairs
    assert timing.low < 1 < timing.high
    assert timing.verdict == "ambiguous"


def test_a_machine_that_is_busy_at_first_voids_nothing_while_there_is_time_to_look_again() -> None:
    calls = iter(range(10**9))

    def busy_at_first(slots: int) -> float:
        return 0.0 if next(calls) < 400 else 100.0

    plan = TimingPlan(min_pairs=4, max_pairs=60, turn_us=500.0, seconds=60.0)
    timing, mine, _ = timed(busy_at_first, lambda _: 200.0, plan)
    assert timing.speedup == pytest.approx(2)
    assert plan.min_pairs < len(mine.turns) <= plan.max_pairs


def a_drift(n: int) -> float:
    """The beginning is half as long as what comes after it."""
    return 100.0 if n < 60 else 200.0


def test_a_baseline_that_changes_in_the_middle_is_measured_again() -> None:
    plan = TimingPlan(min_pairs=12, clear_pairs=32, turn_us=500.0, half_width=0.001)
    sides = a_side(ReplayedRunner(lambda _: 100.0)), a_side(ReplayedRunner(a_drift))
    timing = measure(*sides, plan, random.Random(1))
    assert timing.speedup == pytest.approx(2.0), "what came before the change is not part of it"
    assert (timing.low, timing.high) == pytest.approx((2.0 / (1 + PLACEMENT), 2.0 * (1 + PLACEMENT)))


def test_a_baseline_that_keeps_changing_settles_nothing() -> None:
    plan = TimingPlan(min_pairs=12, clear_pairs=32, turn_us=500.0, half_width=0.001)
    with pytest.raises(RunnerFailed, match="at the end of the measurement as at its beginning") as caught:
        timed(lambda _: 100.0, lambda n: 100.0 * 1.02**n, plan)
    assert isinstance(caught.value.diagnostics[0], Unsettled)


def test_a_machine_that_changes_for_both_voids_nothing() -> None:
    plan = TimingPlan(min_pairs=12, clear_pairs=32, turn_us=500.0, half_width=0.001)
    timing, mine, _ = timed(lambda n: 0.5 * a_drift(n), a_drift, plan)
    assert timing.speedup == pytest.approx(2.0)
    assert len(mine.turns) == plan.max_pairs


def test_a_clear_loser_is_not_measured_to_the_end() -> None:
    rng = random.Random(3)
    timing, mine, _ = timed(lambda _: rng.uniform(300, 500), lambda _: 100.0, TimingPlan(half_width=0.001))
    assert timing.verdict == "slower"
    assert len(mine.turns) == TimingPlan().min_pairs


def test_both_sides_get_the_same_inputs_in_the_same_order_and_take_turns_at_going_first() -> None:
    timing, mine, theirs = timed(lambda _: 1000.0, lambda _: 1000.0)
    mine_runner, their_runner = cast(ReplayedRunner, mine.runner), cast(ReplayedRunner, theirs.runner)
    assert mine_runner.batches == their_runner.batches
    assert timing.pairs == len(mine.turns) == len(theirs.turns)


def test_no_call_of_a_batch_sees_an_input_twice_and_all_inputs_get_used() -> None:
    _, mine, _ = timed(lambda _: 5.0, lambda _: 5.0)
    batches = cast(ReplayedRunner, mine.runner).batches
    assert all(len(set(batch)) == len(batch) for batch in batches)
    assert {slot for batch in batches for slot in batch} == set(range(16))


def test_the_idle_side_is_held_still() -> None:
    _, mine, theirs = timed(lambda _: 100.0, lambda _: 100.0)
    assert not cast(ReplayedRunner, mine.runner).running
    assert not cast(ReplayedRunner, theirs.runner).running

    class Watchful(ReplayedRunner):
        other: ReplayedRunner

        def call(self, workload: int, slots: Sequence[int], function: int, *, graph: bool) -> float:
            assert not self.other.running
            return super().call(workload, slots, function, graph=graph)

    one, two = Watchful(lambda _: 100.0), Watchful(lambda _: 100.0)
    one.other, two.other = two, one
    measure(a_side(one), a_side(two), TimingPlan(), random.Random(1))


def test_outputs_are_checked_after_every_turn() -> None:
    checked: list[int] = []
    runner = ReplayedRunner(lambda _: 100.0)
    side = a_side(runner)
    side.verify = lambda _, slot, whole: checked.append(slot)
    timing = measure(side, a_side(ReplayedRunner(lambda _: 100.0)), TimingPlan(), random.Random(1))
    assert len(checked) >= timing.pairs

    def wrong(_runner: Runner, _slot: int, /, *, whole: bool) -> None:
        raise RunnerFailed(Unsettled(message="wrong", advice="none"))

    side = a_side(ReplayedRunner(lambda _: 100.0))
    side.verify = wrong
    with pytest.raises(RunnerFailed, match="wrong"):
        measure(side, a_side(ReplayedRunner(lambda _: 100.0)), TimingPlan(), random.Random(1))


def test_the_batch_that_counts_is_one_that_was_checked() -> None:
    """The quickest of a turn decides: it is looked at before anything else is written to its outputs."""
    runner = ReplayedRunner(lambda n: 100.0 - n % 17)
    side = a_side(runner)
    looked_at: list[list[int]] = []

    def verify(_runner: Runner, slot: int, /, *, whole: bool) -> None:
        assert slot in [*runner.batches[-1], *runner.batches[-2]]
        looked_at.append(runner.batches[-2])

    side.size(6000.0)
    side.verify = verify
    side.turn(1)
    took = {tuple(batch): 100.0 - n % 17 for n, batch in enumerate(runner.batches, 1) if len(batch) > 1}
    batches = [b for b in runner.batches[-2 * side.repeats :] if len(b) > 1]
    quickest = min(batches, key=lambda batch: took[tuple(batch)])
    assert quickest in looked_at


class WatchedInputs:
    """Knows whether slots hold something that was never there before, as a kernel that keeps answers would."""

    def __init__(self, possible: bool = True) -> None:
        self.possible, self.new, self.written, self.probes = possible, False, False, 0

    def change(self, _slot: int) -> None:
        pass

    def pressure(self) -> AbstractContextManager[None]:
        return nullcontext()

    def touch(self, _slot: int, *, same: bool) -> bool:
        self.new, self.written = not same, True
        return self.possible

    def restore(self) -> None:
        self.new = self.written = False
        self.probes += 1


def with_inputs(inputs: WatchedInputs, us: Callable[[], float]) -> Timing:
    mine, theirs = ReplayedRunner(lambda _: us()), ReplayedRunner(lambda _: 200.0)
    return measure(a_side(mine), a_side(theirs), TimingPlan(), random.Random(1), inputs)


def test_a_kernel_that_keeps_answers_by_the_whole_input_is_found_out() -> None:
    inputs = WatchedInputs()
    with pytest.raises(RunnerFailed) as caught:
        with_inputs(inputs, lambda: 100.0 if inputs.new else 20.0)
    assert isinstance(caught.value.diagnostics[0], Cheat)
    assert "not seen before" in caught.value.diagnostics[0].message
    assert not inputs.new, "the inputs are what they were"


def test_caches_that_were_written_to_accuse_nobody_and_don_t_count() -> None:
    inputs = WatchedInputs()
    timing = with_inputs(inputs, lambda: 300.0 if inputs.written else 100.0)
    assert timing.speedup == pytest.approx(2)
    assert inputs.probes >= 2


def test_a_busy_moment_on_new_inputs_accuses_nobody() -> None:
    inputs = WatchedInputs()
    timing = with_inputs(inputs, lambda: 300.0 if inputs.new and inputs.probes < 6 else 100.0)
    assert timing.speedup == pytest.approx(2)
    assert inputs.probes >= 8, "the suspicion was tested"


class Remembering(ReplayedRunner):
    """Takes 100 us a call on a slot that holds other values than it did at the call before, and 20 us on any other."""

    def __init__(self, inputs: WatchedInputs) -> None:
        super().__init__(lambda _: 0.0)
        self._inputs, self._seen, self._news = inputs, dict[int, int](), 0

    def call(self, workload: int, slots: Sequence[int], function: int, *, graph: bool) -> float:
        took = super().call(workload, slots, function, graph=graph)
        for slot in slots:
            self._news += self._inputs.new
            holds = self._news if self._inputs.new else 0
            took += 20.0 if self._seen.get(slot) == holds else 100.0
            self._seen[slot] = holds
        return took


@pytest.mark.parametrize("seed", range(20))
def test_what_was_kept_of_new_values_hides_nobody_when_the_old_ones_are_back(seed: int) -> None:
    """In turns of two batches, the first after others on new values, nothing else is quick at the old ones."""
    inputs = WatchedInputs()
    plan = TimingPlan(min_pairs=4, max_pairs=4, turn_us=200.0)
    with pytest.raises(RunnerFailed, match=r"calls take [45]\.\d+ times as long on inputs"):
        measure(a_side(Remembering(inputs)), a_side(ReplayedRunner(lambda _: 200.0)), plan, random.Random(seed), inputs)


def test_where_nothing_can_be_touched_nothing_is_concluded_from_it() -> None:
    inputs = WatchedInputs(possible=False)
    assert with_inputs(inputs, lambda: 100.0 if inputs.new else 20.0).verdict == "faster"


@pytest.mark.parametrize("us", [0.2, 3.0, 70.0, 5000.0, 1e6])
def test_a_turn_takes_about_as_long_as_planned(us: float) -> None:
    side = a_side(ReplayedRunner(lambda _: us, round_trip=0.0))
    side.size(6000.0)
    calls = side.repeats * (side.batch + 1)
    assert 2 <= side.batch <= side.slots
    assert calls * us < 6000 * 3 or calls <= 9, "three differences of two calls and one are the least"
    assert calls * us > 6000 / 3 or side.batch == 16
