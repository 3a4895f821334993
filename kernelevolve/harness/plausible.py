"""Is a measurement possible at all? What is too good has to be explained before it counts."""

from kernelevolve.harness.runner import RunnerFailed
from kernelevolve.harness.timing import FEWEST_PAIRS, Side, Timing
from kernelevolve.schema import Cheat, Device, Hardware

FLOOR = 2.0
"""Times as fast as the measured ceilings allow. Those measured on a busy machine are low, but not by that much."""

BEYOND = 2
"""Times the last cache of a CPU from which on a working set is held against its own bandwidth. A smaller one is held
against that of a working set so much smaller as `CACHED` says: how much of the cache is one's own changes with the
neighbours, from the moment in which the ceilings were measured to this one."""
CACHED = 4

START_UP_CALLS = 1.0
"""Calls that the first one of a batch may take longer than the others: its cache is cold."""
START_UP_US = {"cpu": 60.0, "gpu": 200.0}
"""The same in microseconds: threads wake up, a device changes from one process to another."""


def floor_slots(hardware: Hardware, bytes_each: int, slots: int) -> int:
    """Of how many inputs the working set is that sets the bandwidth which nobody exceeds."""
    shared = hardware.cache_bytes.get("L3", 0)
    return slots if bytes_each * slots >= BEYOND * shared else max(1, slots // CACHED)


def above_the_floor(workload: str, roofline_share: float) -> None:
    """Raises `RunnerFailed` for a time that the machine's bandwidth or arithmetic doesn't allow."""
    if roofline_share > FLOOR:
        raise RunnerFailed(
            Cheat(
                message=f"{workload}: {roofline_share:.1f} times as fast as moving the compulsory bytes, or doing the "
                "operations, at this machine's measured ceilings",
                advice="do all of the work in every call; if it is done, measure the ceilings again on a quiet machine "
                "(delete them from the cache) or correct the target's cost model",
                name="below the physical floor",
                workload=workload,
            )
        )


def batches_agree(side: Side, timing: Timing, round_trip_us: float, device: Device) -> None:
    """Raises `RunnerFailed` where a batch of one takes much longer than a call of a larger batch.

    A call's time is the difference between batches. Work that is done in advance by the first call of any batch, for
    the calls to come, cancels out of that difference; it shows in batches of one. The quickest of all batches are
    compared: what the machine adds to one is never negative, so a busy machine is no reason to accuse anybody.
    """
    if len(side.turns) < FEWEST_PAIRS:
        return
    first = min(side.singles) - round_trip_us
    among_others = max(timing.candidate_us, (min(side.batches) - min(side.singles)) / (side.batch - 1))
    if first > (1 + START_UP_CALLS) * among_others + START_UP_US[device]:
        workload = side.runner.name(side.workload)
        raise RunnerFailed(
            Cheat(
                message=f"{workload}: a call alone takes {first:.1f} us, one among others {among_others:.1f} us",
                advice="do the work of each call in that call: nothing in advance, nothing for other calls",
                name="work in advance",
                workload=workload,
            )
        )
