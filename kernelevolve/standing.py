"""Where a search stands: what it has counted and found."""

from dataclasses import dataclass
from typing import Literal

from kernelevolve.llm.budget import Totals
from kernelevolve.policies.stopping import Spent, StopReason, stop
from kernelevolve.rest import AtRest, surest, width
from kernelevolve.schema import Calibration, Candidate, Evaluation, Failed, Parent, Passed, RunSpec, Triaged

Stage = Literal["calibrating", "searching", "confirming", "done"]
Stopped = StopReason | Literal["time", "exhausted"]
"""exhausted: the proposer has nothing left to say."""

WIDE = 1.1
"""Upper over lower end of the best's interval beyond which it is looked at once more before a rival is dismissed."""

NOISE = 1.5
"""Upper over lower end of an interval beyond which it tells more of the machine than of the kernel, which is looked at
once more before it breeds or is forgotten."""

MOST_LOOKS = 3
"""at one best, beside its confirmation"""


@dataclass(frozen=True)
class Progress:
    """What a listener hears."""

    stage: Stage
    evaluated: int
    failed: int
    in_flight: int
    """evaluations under way"""
    budget: int
    seconds: float
    seconds_left: float | None
    best: Passed | None
    best_label: str
    estimated_us: float | None = None
    """the best estimate so far, in microseconds, where nothing is measured; `best_label` is that candidate's"""
    asked: int = 0
    """questions to models under way"""
    tokens: int = 0
    usd: float = 0.0
    """what model calls have cost, US dollars; without those whose price isn't known"""


@dataclass(frozen=True)
class SearchResult:
    """How a search ended. `best` was measured twice, the second time in a fresh process."""

    run: str
    target: str
    hardware_key: str
    evaluated: int
    failed: int
    best: Parent | None
    baseline: dict[str, str]
    seconds: float
    stopped: Stopped


class Standing:
    """What a search has seen so far."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self.rest = AtRest()
        self.begun = 0
        """steps that were asked for; the next one has this number"""
        self.evaluated = 0
        self.failed = 0
        self.best: Parent | None = None
        self.best_number = 0
        self._evaluated_at_best = 0
        self._rival: tuple[int, Parent] | None = None
        """confirmed, and perhaps faster than the best, whose interval is too wide to tell"""
        self._looks = 0
        """at the best, to tell it from a rival"""
        self.device_s = 0.0
        """what evaluations took, confirmations included"""
        self._longest_s = 0.0
        self._estimated: tuple[float, Candidate] | None = None

    @property
    def best_passed(self) -> Passed | None:
        """What was measured of the best, the second time."""
        return self.best.evaluation if self.best and isinstance(self.best.evaluation, Passed) else None

    @property
    def estimated_us(self) -> float | None:
        """The best estimate, microseconds."""
        return self._estimated[0] if self._estimated else None

    @property
    def best_label(self) -> str:
        """The best candidate in a few words, or the one of the best estimate."""
        best = self.best.candidate if self.best else self._estimated[1] if self._estimated else None
        return best.label if best else ""

    def count(self, evaluation: Evaluation) -> None:
        """Take an evaluation of the search, or a confirmation, into account."""
        self.rest.saw(evaluation)
        self.device_s += evaluation.costs.total_s
        self._longest_s = max(self._longest_s, evaluation.costs.total_s)
        if evaluation.purpose == "search":
            self.evaluated += 1
            self.failed += isinstance(evaluation, Failed)

    def look_at(self, number: int, outcome: Parent) -> None:
        """See whether a candidate is the new best: a confirmed one that is faster for certain."""
        said = outcome.evaluation
        if isinstance(said, Passed) and said.purpose == "confirm":
            self._compare(number, outcome, said)
        time = said.estimated_us if isinstance(said, Triaged) else None
        if time is not None and (self._estimated is None or time < self._estimated[0]):
            self._estimated = time, outcome.candidate

    def doubtful(self) -> tuple[int, Candidate] | None:
        """The best, where it has to be looked at once more, so that a moment of noise doesn't keep its place for good.

        Its interval is so wide that a rival can't be told from it, or its baselines were not at rest, as is known now.
        """
        best = self.best_passed
        if best is None or self.best is None or self._looks >= MOST_LOOKS:
            return None
        wide = self._rival is not None and self._wide(best)
        return (self.best_number, self.best.candidate) if wide or self.rest.flatter(best) else None

    def looking(self) -> None:
        """Note that the best is being looked at once more."""
        self._looks += 1

    def _wide(self, best: Passed) -> bool:
        return width(best) > WIDE and self._looks < MOST_LOOKS

    def _compare(self, number: int, outcome: Parent, said: Passed) -> None:
        best = self.best_passed
        if best is None or said.beats(best):
            self._crown(number, outcome)
        elif self.best is not None and outcome.candidate == self.best.candidate:
            if surest((best, said)) is said:
                self.best = outcome
            if self._rival is not None:
                again, self._rival = self._rival, None
                self.look_at(*again)
        elif said.fitness > best.fitness:
            self._rival = number, outcome

    def _crown(self, number: int, outcome: Parent) -> None:
        self.best, self.best_number = outcome, number
        self._evaluated_at_best = self.evaluated
        self._rival, self._looks = None, 0

    def wants_confirmation(self, evaluation: Evaluation) -> bool:
        """Whether a candidate needs its second look: it may be the new best, or noise has hidden its speed."""
        best = self.best_passed
        if isinstance(evaluation, Failed):
            return evaluation.purpose == "search" and evaluation.unsettled
        if not isinstance(evaluation, Passed) or evaluation.purpose != "search":
            return False
        if best is None or evaluation.may_beat(best) or not evaluation.settled or width(evaluation) > NOISE:
            return True
        return self._wide(best) and evaluation.fitness > best.fitness

    def limit(self, calls: Totals, under_way: int) -> StopReason | None:
        """Why no further step is begun; None while one may be.

        `under_way` evaluations, and the one that the step would lead to, may each take as long as the longest so far.
        """
        spec = self._spec
        spent = Spent(
            evaluations=self.begun,
            usd=calls.usd + calls.usd_in_flight,
            tokens=calls.tokens + calls.tokens_in_flight,
            device_seconds=self.device_s + (under_way + 1) * self._longest_s,
        )
        stalled = self.evaluated - self._evaluated_at_best
        return stop(spec.stop, spec.budgets, spec.evals, spent=spent, best=self.best_passed, stalled=stalled)


def fastest_baselines(calibration: Calibration) -> dict[str, str]:
    """Workload to the name of its fastest baseline."""
    return {workload: calibration.fastest(workload) for workload in calibration.times}


def baseline_times_us(calibration: Calibration) -> dict[str, float]:
    """Workload to the time of its fastest baseline, microseconds."""
    found = {}
    for workload, name in fastest_baselines(calibration).items():
        times = {t.baseline: t.median_us for t in calibration.times[workload]}
        if (time := times[name]) is not None:
            found[workload] = time
    return found
