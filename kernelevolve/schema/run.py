"""One search: what was asked, each step it took, and what happened to it."""

from typing import Literal

from pydantic import Field

from kernelevolve.schema.brief import Brief
from kernelevolve.schema.candidate import Candidate, Proposal
from kernelevolve.schema.evaluation import Calibration, Evaluation
from kernelevolve.schema.hardware import Hardware
from kernelevolve.schema.job import Sandboxing
from kernelevolve.schema.model import Exchange, ModelInfo
from kernelevolve.schema.record import Record
from kernelevolve.schema.target import Target


class Budgets(Record):
    """What a run may spend beside its evaluations. None means no limit; what is under way counts as spent."""

    usd: float | None = Field(None, gt=0, description="US dollars for model calls")
    tokens: int | None = Field(None, ge=1, description="input and output tokens of model calls together")
    device_seconds: float | None = Field(None, gt=0, description="time that evaluations took, confirmations included")


class StopRules(Record):
    """When a run may end before its budget does. None means never for that reason."""

    speedup: float | None = Field(None, gt=0, description="lower end of the best's interval that is good enough")
    roofline: float | None = Field(None, gt=0, le=1, description="share of the roofline that is good enough")
    stall: int | None = Field(None, ge=1, description="evaluations in a row without a new best")


class RunSpec(Record):
    """What a run was asked to do. A resumed run goes by this, not by today's settings."""

    run: str = Field(description="name, for instance topk-20261122-061502-3f9a")
    created_at: str = Field(description="UTC, ISO 8601")
    target: Target
    hardware: Hardware
    language: str
    proposer: str
    policy: str
    seed: int
    evals: int = Field(description="total budget of evaluations, confirmations of a new best not counted")
    minutes: float | None = Field(None, description="wall-clock budget of one sitting; None means none")
    budgets: Budgets = Budgets()
    stop: StopRules = StopRules()
    models: tuple[ModelInfo, ...] = Field((), description="who is asked; empty for a proposer that asks nobody")
    lanes: int = Field(1, ge=1, description="questions to models under way at once")
    knowledge: bool = Field(True, description="whether briefs carry retrieved documents")
    diagnostics: bool = Field(
        True, description="whether briefs tell what was found and what bounds a parent, or no more than its times"
    )
    skills: float = Field(0.5, ge=0, le=1, description="share of briefs that may carry what earlier runs learned")
    tuning: float | None = Field(
        None, ge=0, le=1, description="share of briefs that the tuner answers beside a model; None: the proposer's own"
    )
    workers: int
    threads: int
    sandbox: Sandboxing = "any"
    executor: str = Field("local", description="who judges; triage looks at candidates without their device")
    kernelevolve: str = Field(description="version that started it")


class Ask(Record):
    """A step's brief, and the questions that were put to models for it."""

    number: int
    brief: Brief
    exchanges: tuple[Exchange, ...] = Field((), description="by attempt; empty where nobody was asked or answered yet")


class Step(Record):
    """One proposal of a run and what became of it."""

    number: int = Field(description="from 0, in the order in which the proposals were asked for")
    proposal: Proposal
    candidate: Candidate | None = Field(None, description="None where the proposal never became one")
    evaluation: Evaluation | None = Field(None, description="None while it is under way")
    confirmations: tuple[Evaluation, ...] = Field((), description="second looks at a new best, in a fresh process")


EventKind = Literal["started", "resumed", "interrupted", "finished", "certified", "refused"]


class Event(Record):
    """Something that happened to a run as a whole."""

    kind: EventKind
    at: str = Field(description="UTC, ISO 8601")
    detail: str = Field("", description="a sentence, or the digest of what the event produced")


class Run(Record):
    """A run as the store has it."""

    spec: RunSpec
    calibration: Calibration | None = None
    steps: tuple[Step, ...] = ()
    events: tuple[Event, ...] = ()
