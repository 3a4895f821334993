"""Which limit a kernel sits at, from its time and the machine's ceilings."""

from collections.abc import Iterator

from kernelevolve.schema import Bound, Ceilings, Measurement, Profile, Target, Workload

LATENCY_SHARE = 0.2
"""Below this share of the roofline neither bandwidth nor arithmetic explains the time."""

NEAR_SHARE = 0.6
"""From this share of the roofline on there is little to gain but by less work."""

BESIDE_SHARE, SUM_WITHIN = 0.15, 0.12
"""Where the lesser of arithmetic and memory takes this share of the time or more, and both together are as near to it
as that, they are done one after the other."""

START_UP_SHARE = 0.1
"""Share of a call from which on it is worth saying what threads cost that do nothing."""

_NEAR: dict[Bound, str] = {
    "memory": "it is near the bandwidth of the memory it works in: move fewer bytes (fuse, narrow, reuse in cache)",
    "compute": "it is near the arithmetic peak: do fewer operations, or use wider instructions; "
    "of lower precision only where that is as exact as the element type demands",
}
_FAR: dict[Bound, str] = {
    "memory": "bandwidth limits it sooner than arithmetic would, and much of it is unused: keep more reads in flight "
    "(further ahead, wider, on every thread all the time) and do less between them, before you move fewer bytes",
    "compute": "arithmetic limits it sooner than bandwidth would, and much of it is unused: more independent "
    "operations in flight, wider instructions, and fewer beside those that count",
    "latency": "neither bandwidth nor arithmetic explains the time: look at dependencies, branches, scalar code, "
    "thread imbalance and start-up cost",
}


def precision(target: Target, workload: Workload) -> str:
    """Element type whose peak bounds the operations."""
    return workload.dtypes.get(target.cost.precision, target.cost.precision)


def roofline_us(target: Target, workload: Workload, ceilings: Ceilings, slots: int) -> float:
    """Least time of a call (microseconds), for inputs that rotate through `slots` different ones."""
    moved = target.compulsory_bytes(workload)
    return ceilings.roofline_us(target.operations(workload), moved, moved * slots, precision(target, workload))


def profile(target: Target, workload: Workload, ceilings: Ceilings, slots: int, measured: Measurement) -> Profile:
    """How close a measurement comes to what the machine can do."""
    seconds = measured.candidate_us / 1e6
    operations, moved = target.operations(workload), target.compulsory_bytes(workload)
    share = roofline_us(target, workload, ceilings, slots) / measured.candidate_us
    arithmetic = ceilings.roofline_us(operations, 0, moved * slots, precision(target, workload))
    memory = ceilings.roofline_us(0, moved, moved * slots, precision(target, workload))
    bound: Bound = "latency" if share < LATENCY_SHARE else "memory" if memory >= arithmetic else "compute"
    gbps, gflops = moved / seconds / 1e9, operations / seconds / 1e9
    return Profile(
        message=f"{workload.name}: {measured.candidate_us:.1f} us, {share:.0%} of the roofline ({bound} bound), "
        f"{gbps:.1f} GB/s out of {moved * slots / 1e6:.3g} MB by turns, {gflops:.1f} GFLOP/s",
        advice="; ".join(_advice(bound, share, (arithmetic, memory), ceilings.fork_join_us, measured.candidate_us)),
        workload=workload.name,
        bound=bound,
        roofline_share=share,
        achieved_gbps=gbps,
        achieved_gflops=gflops,
    )


def _advice(
    bound: Bound, share: float, parts_us: tuple[float, float], fork_join_us: float | None, took_us: float
) -> Iterator[str]:
    yield _NEAR[bound] if share >= NEAR_SHARE else _FAR[bound]
    arithmetic, memory = parts_us
    if min(parts_us) >= BESIDE_SHARE * took_us and abs(sum(parts_us) / took_us - 1) <= SUM_WITHIN:
        yield (
            f"arithmetic alone takes {arithmetic:.4g} us, memory alone {memory:.4g} us, and their sum is the time: "
            "they don't overlap, so fetch what comes next, read or written, while you compute"
        )
    if fork_join_us is not None and fork_join_us >= START_UP_SHARE * took_us:
        yield f"a parallel region that does nothing takes {fork_join_us:.2g} us of this"
