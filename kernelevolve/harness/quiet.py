"""What baselines take at rest, so that a measurement in which one takes much longer is known for what it is.

Candidate and baseline take turns: what slows both is no harm. What slows the baseline alone flatters, be it work that
a candidate left on the device, or a neighbour on a virtual machine while the baseline's threads wait for each other.
"""

from kernelevolve.harness.statistics import Interval, verdict
from kernelevolve.schema import Measurement, Unsettled

LOOKS = 3
"""Measurements in a row that may be disturbed before it is believed that the machine is a slower one now."""


class Quiet:
    """The least that each baseline took on each workload, microseconds a call."""

    def __init__(self) -> None:
        self._least: dict[tuple[str, str], float] = {}

    def rest_us(self, workload: str, baseline: str) -> float | None:
        """The least so far; None where it was not timed yet."""
        return self._least.get((workload, baseline))

    def saw(self, workload: str, baseline: str, took_us: float) -> None:
        """Keep a time, if it is the least so far."""
        key = workload, baseline
        self._least[key] = min(took_us, self._least.get(key, took_us))

    def forget(self, workload: str, baseline: str) -> None:
        """The machine is another one than it was: its time at rest is taken anew."""
        self._least.pop((workload, baseline), None)


def cautious(found: Measurement, confidence: float) -> Measurement:
    """What is left of a speed-up over a baseline that was disturbed: the one that it has over the baseline at rest.

    The interval reaches from there to what was measured, so that nobody crowns it without another look.
    """
    assert found.baseline_rest_us is not None
    share = found.baseline_rest_us / found.baseline_us
    low = found.low * share
    said = verdict(Interval(low, found.high, found.confidence), confidence)
    return found.model_copy(update={"speedup": found.speedup * share, "low": low, "verdict": said})


def void(found: Measurement) -> Unsettled:
    """What to say of a measurement whose baseline may have been slowed by the candidate."""
    return Unsettled(
        message=f"{found.baseline} takes {found.baseline_us:.1f} us on {found.workload} beside this candidate, "
        f"and {found.baseline_rest_us:.1f} us at rest",
        advice="leave nothing running on the device when run returns; if nothing is, measure again",
        workload=found.workload,
    )
