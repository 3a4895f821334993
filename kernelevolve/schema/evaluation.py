"""What the judge says of a candidate."""

import math
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from kernelevolve.schema.diagnostic import Diagnostic
from kernelevolve.schema.estimate import Estimate
from kernelevolve.schema.record import Record
from kernelevolve.schema.triage import KernelNeeds

Verdict = Literal["faster", "same", "slower", "ambiguous"]
Stage = Literal["parse", "build", "load", "check", "time"]
Purpose = Literal["search", "confirm", "certify", "eval"]
"""Why a candidate is evaluated; `confirm` is the second look at a new best, in a fresh process."""


DISTURBED = 1.3
"""Times as slow as it is at rest, and a baseline is no longer the same baseline."""


class Measurement(Record):
    """Candidate against one baseline on one workload, timed in turns."""

    workload: str
    axes: dict[str, int]
    dtypes: dict[str, str]
    baseline: str
    candidate_us: float = Field(description="median time of a call, microseconds")
    baseline_us: float = Field(description="median time of a call, microseconds")
    baseline_rest_us: float | None = Field(
        None, description="the least that the baseline took before on this machine, microseconds; None where unknown"
    )
    speedup: float = Field(
        description="median of the paired ratios baseline over candidate; where the baseline was disturbed throughout, "
        "over the baseline at rest"
    )
    low: float = Field(description="lower end of the interval of the speed-up")
    high: float = Field(description="upper end of the interval of the speed-up")
    confidence: float = Field(description="coverage of the interval, 0 to 1")
    pairs: int = Field(description="interleaved pairs of turns behind the interval")
    prepare_us: float | None = Field(None, description="one-off time of `prepare`, where the candidate has one")
    roofline_share: float | None = Field(
        None, description="least possible time over measured time; None without ceilings"
    )
    verdict: Verdict

    @property
    def disturbed(self) -> bool:
        """Whether the baseline took much longer than it can: the speed-up may flatter."""
        return self.baseline_rest_us is not None and self.baseline_us > DISTURBED * self.baseline_rest_us


class Environment(Record):
    """Where and with what an evaluation was made."""

    hardware_key: str
    threads: int
    versions: dict[str, str] = Field(description="package or tool to version")
    sandbox: tuple[str, ...] = Field(
        description="walls that held the candidate, for instance 'rlimits', 'pid-namespace'"
    )


class StageCosts(Record):
    """Where the time of one evaluation went, in seconds."""

    build_s: float = 0.0
    check_s: float = 0.0
    time_s: float = Field(0.0, description="timing stage, the kernels' own time included")
    kernel_s: float = Field(0.0, description="of the timing stage: spent inside candidate and baseline")
    wait_s: float = Field(0.0, description="waiting for the machine to be free for timing")
    total_s: float = 0.0


class Passed(Record):
    """The candidate is right on every workload that was tried, and was timed."""

    outcome: Literal["passed"] = "passed"
    candidate: str = Field(description="digest")
    target: str = Field(description="digest")
    purpose: Purpose = "search"
    measurements: tuple[Measurement, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    code: str | None = Field(None, description="digest of what the compiler made; None where it is compiled as it runs")
    environment: Environment
    costs: StageCosts = StageCosts()

    @property
    def speedup(self) -> float:
        """Geometric mean over the workloads of baseline time over candidate time."""
        return math.exp(sum(math.log(m.speedup) for m in self.measurements) / len(self.measurements))

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of the geometric mean (low, high).

        The workloads are measured independently, so the half-widths of their log intervals add in quadrature.
        """
        n = len(self.measurements)
        centre = math.log(self.speedup)
        below = math.sqrt(sum(math.log(m.speedup / m.low) ** 2 for m in self.measurements)) / n
        above = math.sqrt(sum(math.log(m.high / m.speedup) ** 2 for m in self.measurements)) / n
        return math.exp(centre - below), math.exp(centre + above)

    @property
    def fitness(self) -> float:
        """What selection compares: the lower end of the geometric mean's interval."""
        return self.interval[0]

    @property
    def settled(self) -> bool:
        """Whether anything is known of its speed: a verdict on a workload, or a second look, whatever that said."""
        return self.purpose == "confirm" or any(m.verdict != "ambiguous" for m in self.measurements)

    def may_beat(self, other: "Passed") -> bool:
        """Whether a closer look is worth it: by the best estimate it is faster."""
        return self.speedup > other.speedup

    def beats(self, other: "Passed") -> bool:
        """Whether it is faster for certain: its whole interval lies above the other's."""
        return self.interval[0] > other.interval[1]


class Failed(Record):
    """The candidate failed: at which stage, and why."""

    outcome: Literal["failed"] = "failed"
    candidate: str | None = Field(description="digest; None where the proposal never became a candidate")
    target: str = Field(description="digest")
    purpose: Purpose = "search"
    stage: Stage
    diagnostics: tuple[Diagnostic, ...]
    code: str | None = Field(None, description="digest of what the compiler made; None where it made nothing")
    environment: Environment | None = None
    costs: StageCosts = StageCosts()

    @property
    def unsettled(self) -> bool:
        """Whether nothing was found but that the machine's noise hides the time."""
        return bool(self.diagnostics) and all(d.kind == "unsettled" for d in self.diagnostics)


class Triaged(Record):
    """Nothing speaks against the candidate, as far as that can be found out without its device. It was not timed."""

    outcome: Literal["triaged"] = "triaged"
    candidate: str = Field(description="digest")
    target: str = Field(description="digest")
    purpose: Purpose = "search"
    estimates: tuple[Estimate, ...] = Field((), description="of the workloads whose launches are known")
    estimated_us: float | None = Field(
        None, description="geometric mean of the estimates, microseconds; None unless every workload has one"
    )
    kernels: tuple[KernelNeeds, ...] = Field((), description="what was compiled, each different code once")
    diagnostics: tuple[Diagnostic, ...] = ()
    triage: str = Field(description="digest of what triage found")
    code: str | None = Field(
        None, description="digest of the code that the compiler made and its launches; None where they aren't known"
    )
    environment: Environment
    costs: StageCosts = StageCosts()

    @property
    def estimated_rate(self) -> float | None:
        """Calls a second by the estimate: what ranks candidates that nobody has measured. Higher is better."""
        return None if self.estimated_us is None else 1e6 / self.estimated_us


Evaluation = Annotated[Passed | Failed | Triaged, Field(discriminator="outcome")]
evaluation_adapter: TypeAdapter[Passed | Failed | Triaged] = TypeAdapter(Evaluation)
"""Reads an evaluation back from JSON."""


class BaselineTime(Record):
    """One baseline on one workload."""

    baseline: str
    median_us: float | None = Field(description="None where it failed")
    problem: str | None = Field(None, description="why it can't be used: an error, or a wrong answer")


class Calibration(Record):
    """The baselines of a target timed against each other on this machine."""

    target: str = Field(description="digest")
    times: dict[str, tuple[BaselineTime, ...]] = Field(description="workload to its baselines")
    environment: Environment

    def fastest(self, workload: str) -> str:
        """Name of the fastest correct baseline on a workload (there is always one: the judge refuses otherwise)."""
        timed = [
            (t.median_us, t.baseline) for t in self.times[workload] if t.median_us is not None and t.problem is None
        ]
        return min(timed)[1]
