"""What baselines take at rest, as far as a run has seen: by this it is known where a speed-up flatters.

On a virtual machine a baseline whose threads wait for each other may take twice as long for a while, in one process
as in the next. What it took in another moment of the run tells.
"""

from collections.abc import Mapping, Sequence

from kernelevolve.schema import DISTURBED, Calibration, Evaluation, Passed, Run

Times = Mapping[str, Mapping[str, float]]
"""Workload to baseline to microseconds a call."""


class AtRest:
    """The least that each baseline took on each workload."""

    def __init__(self) -> None:
        self._least: dict[str, dict[str, float]] = {}

    @classmethod
    def of(cls, run: Run) -> "AtRest":
        """Out of everything that a run has measured."""
        rest = cls()
        if run.calibration is not None:
            rest.calibrated(run.calibration)
        for step in run.steps:
            for evaluation in (step.evaluation, *step.confirmations):
                if evaluation is not None:
                    rest.saw(evaluation)
        return rest

    @property
    def us(self) -> dict[str, dict[str, float]]:
        """A copy of all of it."""
        return {workload: dict(times) for workload, times in self._least.items()}

    def calibrated(self, calibration: Calibration) -> None:
        """Take the baselines' own times into account."""
        for workload, times in calibration.times.items():
            for time in times:
                if time.median_us is not None:
                    self._keep(workload, time.baseline, time.median_us)

    def saw(self, evaluation: Evaluation) -> None:
        """Take what the baselines took beside a candidate into account."""
        if isinstance(evaluation, Passed):
            for found in evaluation.measurements:
                known = found.baseline_us if found.baseline_rest_us is None else found.baseline_rest_us
                self._keep(found.workload, found.baseline, min(known, found.baseline_us))

    def flatter(self, said: Passed) -> bool:
        """Whether a baseline took much longer beside this candidate than it does at rest, and nobody knew that."""
        for found in said.measurements:
            least = self._least.get(found.workload, {}).get(found.baseline, found.baseline_us)
            if found.baseline_us > DISTURBED * least and not found.disturbed:
                return True
        return False

    def _keep(self, workload: str, baseline: str, took_us: float) -> None:
        times = self._least.setdefault(workload, {})
        times[baseline] = min(took_us, times.get(baseline, took_us))


def width(said: Passed) -> float:
    """Upper over lower end of its interval."""
    low, high = said.interval
    return high / low


def surest(looks: Sequence[Passed]) -> Passed:
    """Of several looks at one kernel the one with the narrowest interval, of those that don't flatter."""
    rest = AtRest()
    for look in looks:
        rest.saw(look)
    return min(looks, key=lambda look: (rest.flatter(look), width(look)))
