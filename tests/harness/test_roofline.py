"""What a profile tells a proposer is what its figures say: near a limit, far below it, or held up by something else."""

import pytest

from kernelevolve.harness.roofline import profile
from kernelevolve.schema import Bandwidth, Ceilings
from kernelevolve.testing.records import a_measurement, a_target

TARGET = a_target()
WORKLOAD = TARGET.workloads[0]
MOVED = TARGET.compulsory_bytes(WORKLOAD)


def ceilings(fork_join_us: float | None, arithmetic_us: float) -> Ceilings:
    """With which the bytes of the workload take 10 us."""
    return Ceilings(
        bandwidths=(Bandwidth(footprint_bytes=1, gbps=MOVED / 10e3),),
        peak_gflops={"float32": TARGET.operations(WORKLOAD) / (arithmetic_us * 1e3)},
        fork_join_us=fork_join_us, threads=2, measured_at="2026-01-02T03:04:05+00:00",
    )  # fmt: skip


def advice(took_us: float, fork_join_us: float | None = None, arithmetic_us: float = 1e-3) -> str:
    measured = a_measurement(workload=WORKLOAD.name, candidate_us=took_us)
    return profile(TARGET, WORKLOAD, ceilings(fork_join_us, arithmetic_us), 4, measured).advice


def test_who_is_near_the_bandwidth_is_told_to_move_less() -> None:
    assert "near the bandwidth" in advice(12.0)


def test_who_leaves_most_of_the_bandwidth_unused_is_told_to_use_it() -> None:
    assert "more reads in flight" in advice(30.0)
    assert "near the bandwidth" not in advice(30.0)


def test_where_neither_explains_the_time_other_reasons_are_named() -> None:
    assert "start-up cost" in advice(100.0)


@pytest.mark.parametrize(("took_us", "told"), [(12.0, False), (15.0, True), (21.0, False)])
def test_who_computes_and_waits_in_turns_is_told_so(took_us: float, told: bool) -> None:
    assert ("their sum is the time: they don't overlap" in advice(took_us, arithmetic_us=5.0)) is told


@pytest.mark.parametrize(("took_us", "told"), [(12.0, True), (30.0, False)])
def test_what_threads_cost_is_told_where_it_is_a_part_of_the_time_worth_knowing(took_us: float, told: bool) -> None:
    assert ("a parallel region that does nothing takes 2 us of this" in advice(took_us, 2.0)) is told
