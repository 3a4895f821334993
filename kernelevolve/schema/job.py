"""What crosses the process boundary to the harness."""

from typing import Literal

from pydantic import Field

from kernelevolve.schema.candidate import Candidate
from kernelevolve.schema.evaluation import Purpose
from kernelevolve.schema.hardware import Hardware
from kernelevolve.schema.record import Record
from kernelevolve.schema.target import Target

Sandboxing = Literal["any", "full"]
"""Which walls a candidate needs around it: the strongest that the machine offers, or all that there are."""


class Limits(Record):
    """What a candidate may use; past any of these it is killed."""

    build_s: float = 60.0
    call_s: float = Field(10.0, description="wall time of one batch of calls")
    memory_bytes: int = Field(4 << 30, description="address space of the candidate's process, its buffers included")
    processes: int = Field(64, description="processes and threads")
    file_bytes: int = Field(64 << 20, description="size of any one file it writes")
    output_bytes: int = Field(1 << 20, description="what it may print")


class TimingPlan(Record):
    """How long to measure: after `min_pairs` pairs of turns, and after each further one, it may be enough."""

    confidence: float = Field(0.99, description="coverage of each measurement's interval, all looks taken together")
    min_pairs: int = 9
    clear_pairs: int = Field(12, description="pairs at which a clear verdict has to do, however wide the interval")
    max_pairs: int = Field(32, description="pairs at which an ambiguous verdict has to do")
    half_width: float = Field(
        0.05, description="a clear verdict does before that if half its interval is this narrow, beside the speed-up"
    )
    seconds: float = Field(
        2.0, description="wall time for one workload, after which the first interval of this confidence has to do"
    )
    turn_us: float = Field(6_000.0, description="kernel time of one side's turn, microseconds")


class Job(Record):
    """Evaluate one candidate. `workloads` empty means all search workloads of the hardware's device."""

    target: Target
    candidate: Candidate
    hardware: Hardware
    purpose: Purpose = "search"
    workloads: tuple[str, ...] = Field((), description="names of the workloads to time")
    baselines: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="workload to the baselines it is timed against; the fastest is found where missing",
    )
    rest_us: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="workload to baseline to the least that it took so far, microseconds"
    )
    limits: Limits = Limits()
    timing: TimingPlan = TimingPlan()
    known: dict[str, str] = Field(
        default_factory=dict,
        description="code that the compiler made before (its digest) to the candidate that it was: not judged again",
    )
    threads: int = 1
    sandbox: Sandboxing = "any"
    counters: bool = Field(False, description="look at one workload with a profiler, where the device has one")
    cache_dir: str = Field(description="build cache and the machine lock for timing")


class CalibrationJob(Record):
    """Time the target's baselines against each other."""

    target: Target
    hardware: Hardware
    workloads: tuple[str, ...] = ()
    timing: TimingPlan = TimingPlan()
    limits: Limits = Limits()
    threads: int = 1
    sandbox: Sandboxing = "any"
    cache_dir: str
