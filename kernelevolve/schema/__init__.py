"""The records that cross module borders."""

from kernelevolve.schema.brief import Brief, Document, Parent, Seed
from kernelevolve.schema.candidate import Candidate, Change, Lineage, Proposal, Usage, Value
from kernelevolve.schema.diagnostic import (
    Cheat,
    CompileError,
    Crash,
    Diagnostic,
    LimitExceeded,
    NumericDifference,
    ParseError,
    Pattern,
    Profile,
    Raised,
    Unsettled,
)
from kernelevolve.schema.entry import Box, Entry, Provenance, Refused
from kernelevolve.schema.evaluation import (
    BaselineTime,
    Calibration,
    Environment,
    Evaluation,
    Failed,
    Measurement,
    Passed,
    Purpose,
    Stage,
    StageCosts,
    Verdict,
    evaluation_adapter,
)
from kernelevolve.schema.hardware import Bandwidth, Bound, Ceilings, Hardware
from kernelevolve.schema.job import CalibrationJob, Job, Limits, TimingPlan
from kernelevolve.schema.record import Record, digest_of
from kernelevolve.schema.run import Event, EventKind, Run, RunSpec, Step
from kernelevolve.schema.target import (
    DTYPE_BYTES,
    Baseline,
    CostModel,
    Device,
    ErrorRule,
    ExactRule,
    IndexRule,
    Input,
    NumericRule,
    Output,
    Role,
    Target,
    Workload,
    evaluate,
)

__all__ = [
    "DTYPE_BYTES", "Bandwidth", "Baseline", "BaselineTime", "Bound", "Box", "Brief", "Calibration", "CalibrationJob",
    "Candidate", "Ceilings", "Change", "Cheat", "CompileError", "CostModel", "Crash", "Device", "Diagnostic",
    "Document", "Entry", "Environment", "Event", "EventKind", "ErrorRule", "Evaluation", "ExactRule", "Failed", "Hardware", "IndexRule",
    "Input", "Job", "LimitExceeded", "Limits", "Lineage", "Measurement", "NumericDifference", "NumericRule", "Output",
    "Parent", "ParseError", "Passed", "Pattern", "Profile", "Proposal", "Provenance", "Purpose", "Raised", "Record",
    "Refused", "Role", "Run", "RunSpec", "Seed", "Stage", "StageCosts", "Step", "Target", "TimingPlan", "Unsettled", "Usage", "Value", "Verdict",
    "Workload", "digest_of", "evaluate", "evaluation_adapter",
]  # fmt: skip
