"""What the tools answer with."""

from pydantic import Field, JsonValue

from kernelevolve.cli.standing import BestSoFar
from kernelevolve.llm.desk import Standing
from kernelevolve.schema import (
    Change,
    Diagnostic,
    Evaluation,
    Failed,
    Measurement,
    Passed,
    Record,
    StageCosts,
    Value,
)
from kernelevolve.store.base import RunSummary


class TargetLine(Record):
    """An operation that can be made faster."""

    name: str
    summary: str
    workloads: tuple[str, ...]
    languages: tuple[str, ...] = Field(description="those that the target has seeds in")


class TargetList(Record):
    """Every target."""

    targets: tuple[TargetLine, ...]


class RunList(Record):
    """Every run, newest first."""

    runs: tuple[RunSummary, ...]


class SearchStarted(Record):
    """A search that is under way now."""

    run: str = Field(description="name of the run; the other tools ask for it")


class NextBrief(Record):
    """A brief to answer, or why there is none."""

    run: str
    brief: str | None = Field(None, description="what submit_candidate and skip_brief name it by; None: there is none")
    system: str = Field("", description="who you are in this, and what the rules are")
    prompt: str = Field("", description="the task; it says what form the answer takes")
    standing: Standing = Field(
        description="searching: a process waits for answers; stopped: none does, resume it; ended: no brief will come"
    )
    remark: str = Field("", description="why there is no brief, and what to do")


class Receipt(Record):
    """A brief that is closed now."""

    run: str
    brief: str
    standing: Standing
    remark: str = ""


class Finding(Record):
    """A diagnostic, in a form whose schema a client can afford to read."""

    kind: str = Field(description="parse, compile, numeric, limit, crash, raised, profile, counters, cheat, ...")
    message: str = Field(description="what was found, in one sentence")
    advice: str = Field(description="what can be done about it")
    details: dict[str, JsonValue] = Field(
        default_factory=dict, description="what else its kind tells: file and line, workload, pattern, counters, ..."
    )

    @classmethod
    def of(cls, found: Diagnostic) -> "Finding":
        """Out of a diagnostic."""
        said = found.model_dump(mode="json", exclude_none=True)
        kind, message, advice = (said.pop(name) for name in ("kind", "message", "advice"))
        return cls(kind=kind, message=message, advice=advice, details=said)


class Verdict(Record):
    """What the judge said of a candidate."""

    outcome: str = Field(description="passed, failed, or triaged (looked at without its device)")
    stage: str | None = Field(None, description="at which it failed")
    candidate: str | None = Field(None, description="digest; None where it never became a candidate")
    speedup: float | None = Field(None, description="geometric mean over the workloads; None unless it passed")
    low: float | None = Field(None, description="lower end of the speed-up's interval")
    high: float | None = Field(None, description="upper end of the speed-up's interval")
    measurements: tuple[Measurement, ...] = ()
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, said: Evaluation) -> "Verdict":
        """Out of an evaluation."""
        passed = said if isinstance(said, Passed) else None
        low, high = passed.interval if passed else (None, None)
        return cls(
            outcome=said.outcome,
            stage=said.stage if isinstance(said, Failed) else None,
            candidate=said.candidate,
            speedup=passed.speedup if passed else None,
            low=low,
            high=high,
            measurements=passed.measurements if passed else (),
            findings=tuple(map(Finding.of, said.diagnostics)),
        )


class EvalDocument(Record):
    """What the command `eval` prints."""

    outcome: str
    stage: str | None
    candidate: str | None
    speedup: float | None
    low: float | None
    high: float | None
    diagnostics: tuple[Diagnostic, ...]
    measurements: tuple[Measurement, ...]
    costs: StageCosts

    @property
    def verdict(self) -> Verdict:
        """The same for a client."""
        said = {name: getattr(self, name) for name in Verdict.model_fields if name != "findings"}
        return Verdict(**said, findings=tuple(map(Finding.of, self.diagnostics)))


class StepReport(Record):
    """One step of a run: a proposal, and how it ended."""

    run: str
    step: int
    state: str = Field(
        description="asked: its brief is open; answered: the search hasn't taken the answer up yet; judging; judged"
    )
    brief: str | None = Field(None, description="the open brief, where there is one")
    change: Change | None = None
    parents: tuple[str, ...] = Field((), description="digests of candidates")
    label: str = ""
    idea: str = Field("", description="in the proposer's words")
    evaluation: Verdict | None = None
    confirmation: Verdict | None = Field(None, description="the last second look; it counts instead of the evaluation")


class Ancestor(Record):
    """A candidate in the line of another one."""

    step: int
    candidate: str = Field(description="digest")
    change: Change
    parents: tuple[str, ...] = Field(description="digests; those of seeds are in no step")
    label: str
    idea: str
    outcome: str
    speedup: float | None = Field(None, description="None unless it passed")
    low: float | None = None
    high: float | None = None
    finding: str = Field("", description="of a failure: stage and first diagnostic")


class Ancestry(Record):
    """A candidate and all it was made of, the latest first."""

    run: str
    steps: tuple[Ancestor, ...]


class BestCandidate(Record):
    """The best candidate of a run, with its sources."""

    run: str
    best: BestSoFar | None = Field(None, description="None while nothing passed")
    language: str = ""
    files: dict[str, str] = Field(default_factory=dict, description="relative path to source text")
    tunables: dict[str, Value] = Field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    certification: str = Field("", description="how the run ended: certified or refused, and why; empty before that")


class KnowledgeLine(Record):
    """A document that fits a question."""

    path: str = Field(description="what knowledge_read asks for")
    title: str
    gives: str = Field(description="what a reader gets from it")
    score: float


class KnowledgeFound(Record):
    """Documents that fit, the best first."""

    documents: tuple[KnowledgeLine, ...]
