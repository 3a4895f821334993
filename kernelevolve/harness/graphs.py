"""Calls replayed from captured graphs: what a kernel takes once the cost of launching it is gone.

A measured variant beside the calls themselves, which are what is served and what counts.
"""

from random import Random

from kernelevolve.harness.runner import RunnerFailed
from kernelevolve.harness.timing import Side, Timing, measure
from kernelevolve.schema import Diagnostic, GraphVariant, TimingPlan, Uncaptured

LAUNCH_BOUND_US = 100.0
"""Below this the launches may be most of a call: a Triton launch takes 10 us of Python and more."""


def launch_bound(timing: Timing) -> bool:
    """Whether either side is short enough for its launches to matter."""
    return min(timing.candidate_us, timing.baseline_us) < LAUNCH_BOUND_US


def replayed(mine: Side, theirs: Side, plan: TimingPlan, rng: Random, baseline: str) -> Diagnostic:
    """Capture both sides and time them in turns; a side that can't be captured is told."""
    workload = mine.runner.name(mine.workload)
    try:
        mine.runner.resume()
        mine.runner.capture(mine.workload, mine.function)
    except RunnerFailed as failure:
        return Uncaptured(
            message=f"run can't be captured in a graph on {workload}: {failure}",
            advice="allocate nothing from the driver, read no values and synchronise nothing within run, and launch on "
            "the current stream: then it can be served from a graph",
            workload=workload,
        )  # fmt: skip
    short = plan.model_copy(update={"max_pairs": plan.min_pairs})
    graph = Side(mine.runner, mine.function, mine.workload, mine.slots, mine.verify, graph=True)
    try:
        theirs.runner.resume()
        theirs.runner.capture(theirs.workload, theirs.function)
    except RunnerFailed:
        candidate_us, baseline_us = measure(graph, theirs, short, rng).candidate_us, None
    else:
        other = Side(theirs.runner, theirs.function, theirs.workload, theirs.slots, graph=True)
        timing = measure(graph, other, short, rng)
        candidate_us, baseline_us = timing.candidate_us, timing.baseline_us
    against = f", {baseline} {baseline_us:.1f} us" if baseline_us is not None else f"; {baseline} can't be captured"
    return GraphVariant(
        message=f"{workload} replayed from a graph: {candidate_us:.1f} us{against}",
        advice="what the call takes beyond this is spent launching: fewer, larger launches, and less Python in run",
        workload=workload, baseline=baseline, candidate_us=candidate_us, baseline_us=baseline_us,
    )  # fmt: skip
