"""What is too good to be possible is refused; what a busy machine does to honest work is not."""

from typing import cast

import pytest

from kernelevolve.harness.plausible import above_the_floor, batches_agree, floor_slots
from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.harness.timing import Side, Timing
from kernelevolve.testing.records import a_hardware


class Named:
    @staticmethod
    def name(_workload: int) -> str:
        return "w"


def a_side(singles: list[float], batches: list[float], batch: int = 16) -> Side:
    turns = [(many - one) / (batch - 1) for many, one in zip(batches, singles, strict=True)]
    return Side(
        cast(Runner, Named()), 0, 0, slots=16, batch=batch, turns=turns, singles=singles, batches=batches
    )  # fmt: skip


def a_timing(us: float) -> Timing:
    return Timing(us, us, 1.0, 0.9, 1.1, 0.99, 8, "ambiguous")


def test_work_in_advance_shows_in_batches_of_one() -> None:
    """Seven calls' work in the first, so that sixteen take as long as they should."""
    with pytest.raises(RunnerFailed, match=r"alone takes 700\.0 us, one among others 60\.0 us"):
        batches_agree(a_side([730.0] * 8, [1630.0] * 8), a_timing(60.0), 30.0, "cpu")


def test_a_cold_first_call_is_honest() -> None:
    batches_agree(a_side([230.0] * 8, [1730.0] * 8), a_timing(100.0), 30.0, "cpu")


def test_singles_that_a_busy_machine_held_up_accuse_nobody_as_long_as_one_was_quick() -> None:
    batches_agree(a_side([5000.0] * 7 + [130.0], [9000.0] * 8), a_timing(100.0), 30.0, "cpu")


def test_too_few_turns_accuse_nobody() -> None:
    batches_agree(a_side([5000.0], [6000.0]), a_timing(66.0), 30.0, "cpu")


def test_nothing_is_twice_as_fast_as_the_ceilings_allow() -> None:
    above_the_floor("w", 1.2)
    with pytest.raises(RunnerFailed, match=r"2\.5 times as fast"):
        above_the_floor("w", 2.5)


@pytest.mark.parametrize(
    ("l3", "slots", "counted"),
    [(32 << 20, 16, 16), (32 << 20, 12, 3), (32 << 20, 2, 1), (None, 12, 12)],
    ids=["far beyond the cache", "perhaps in the cache", "within it", "no cache that neighbours share"],
)
def test_only_what_a_shared_cache_may_hold_is_given_the_bandwidth_of_less(
    l3: int | None, slots: int, counted: int
) -> None:
    hardware = a_hardware(cache_bytes={"L3": l3} if l3 else {})
    assert floor_slots(hardware, 4 << 20, slots) == counted
