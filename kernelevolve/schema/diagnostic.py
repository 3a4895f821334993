"""Findings about a candidate, each with what a proposer can do about it."""

from typing import Annotated, Literal

from pydantic import Field

from kernelevolve.schema.hardware import Bound
from kernelevolve.schema.record import Record


class _Finding(Record):
    message: str = Field(description="what was found, in one sentence")
    advice: str = Field(description="what a proposer can do about it")


class ParseError(_Finding):
    """The proposal is not a candidate: no entry point, no source, an ill-formed tunable."""

    kind: Literal["parse"] = "parse"


class NoKernel(_Finding):
    """A language model's answer that holds no kernel."""

    kind: Literal["no_kernel"] = "no_kernel"
    reason: Literal["no_reply", "refusal", "truncated", "empty", "prose", "malformed_edit"]


class Duplicate(_Finding):
    """The run has had this kernel before."""

    kind: Literal["duplicate"] = "duplicate"
    of: str = Field(description="digest of the candidate that came first")
    by: Literal["source", "code"] = Field(description="what is equal: the normalised source, or what the compiler made")


class Reused(_Finding):
    """The kernel was measured in an earlier run, which holds here too."""

    kind: Literal["reused"] = "reused"
    of: str = Field(description="digest of the candidate that was measured")


class CompileError(_Finding):
    """The compiler refused the source."""

    kind: Literal["compile"] = "compile"
    file: str | None = None
    line: int | None = None
    column: int | None = None


Pattern = Literal["everything", "poison", "nan", "tail", "one_row", "some_rows", "scale", "scattered"]
"""Shape of a difference: all elements, elements never written, NaN, the last block of an axis, a single row, a
few rows, a constant factor, or no visible order."""


class NumericDifference(_Finding):
    """An output that is wrong: where, by how much, in which pattern."""

    kind: Literal["numeric"] = "numeric"
    workload: str
    output: str
    wrong: int = Field(description="elements outside the rule")
    total: int
    pattern: Pattern
    first_index: tuple[int, ...]
    expected: str
    actual: str
    largest_error: float | None = None
    allowed_error: float | None = None


class LimitExceeded(_Finding):
    """A bound of the sandbox or of the device was hit."""

    kind: Literal["limit"] = "limit"
    resource: Literal[
        "time", "memory", "output", "file_size", "processes", "shared_memory", "registers", "threads", "grid"
    ]
    limit: float = Field(description="seconds, bytes or a count")
    workload: str | None = None


class Crash(_Finding):
    """The candidate's process ended by a signal, or exited on its own."""

    kind: Literal["crash"] = "crash"
    workload: str | None = None
    signal: str | None = None
    exit_code: int | None = None


class Raised(_Finding):
    """The candidate reported an error itself (threw an exception), or can't be loaded."""

    kind: Literal["raised"] = "raised"
    workload: str | None = None


class Profile(_Finding):
    """How the kernel uses the machine on one workload."""

    kind: Literal["profile"] = "profile"
    workload: str
    bound: Bound
    roofline_share: float = Field(description="least possible time over measured time, 0 to 1")
    achieved_gbps: float = Field(description="compulsory bytes over time, 10^9 bytes a second")
    achieved_gflops: float = Field(description="10^9 operations a second")


class Cheat(_Finding):
    """The candidate did something that only makes sense to mislead the judge."""

    kind: Literal["cheat"] = "cheat"
    name: str
    workload: str | None = None


class Unsettled(_Finding):
    """A measurement that the machine's noise or drift kept from a verdict."""

    kind: Literal["unsettled"] = "unsettled"
    workload: str | None = None


class DeviceFault(_Finding):
    """The device stopped the candidate: an illegal address, a misaligned one, a hang, a memory error."""

    kind: Literal["fault"] = "fault"
    name: str = Field(description="as the driver calls it, for instance CUDA_ERROR_ILLEGAL_ADDRESS")
    workload: str | None = None


class DeviceState(_Finding):
    """How the device was doing while it was timed: watched, never set."""

    kind: Literal["device"] = "device"
    sm_clock_mhz: tuple[float, float] = Field(description="lowest and highest seen")
    memory_clock_mhz: tuple[float, float] | None = Field(
        description="lowest and highest seen; None where it is not told"
    )
    temperature_c: float = Field(description="highest seen")
    power_w: float | None = Field(None, description="highest seen")
    throttled_by: tuple[str, ...] = Field((), description="reasons that the driver gave for lower clocks")


class Counters(_Finding):
    """What a profiler counted while one kernel ran."""

    kind: Literal["counters"] = "counters"
    source: Literal["ncu", "proton", "rocprof"]
    kernel: str
    workload: str | None = None
    launches: int = Field(description="launches that were looked at")
    duration_us: float | None = Field(None, description="median time of a launch under the profiler, microseconds")
    bound: Bound | None = Field(None, description="None where the profiler's counters don't tell")
    metrics: dict[str, float] = Field(
        default_factory=dict,
        description="dram_pct, l2_pct, sm_pct, tensor_core_pct, occupancy_pct (of peak); bank_conflicts, local_bytes, "
        "registers, shared_bytes (counts a launch)",
    )
    stalls: dict[str, float] = Field(
        default_factory=dict, description="reason to its share of warp stalls, 0 to 1, the largest first"
    )


class GraphVariant(_Finding):
    """The same calls replayed from a captured graph: what is left once the launches' own cost is gone."""

    kind: Literal["graph"] = "graph"
    workload: str
    baseline: str
    candidate_us: float
    baseline_us: float | None = Field(description="None where the baseline can't be captured")


class Uncaptured(_Finding):
    """What the candidate launches can't be found out without running it on a device."""

    kind: Literal["uncaptured"] = "uncaptured"
    workload: str | None = None


Diagnostic = Annotated[
    ParseError
    | NoKernel
    | Duplicate
    | Reused
    | CompileError
    | NumericDifference
    | LimitExceeded
    | Crash
    | Raised
    | Profile
    | Cheat
    | Unsettled
    | Uncaptured
    | DeviceFault
    | DeviceState
    | Counters
    | GraphVariant,
    Field(discriminator="kind"),
]
