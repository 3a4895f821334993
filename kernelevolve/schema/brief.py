"""All that a proposer may know."""

from typing import Literal

from pydantic import Field

from kernelevolve.schema.candidate import Candidate, Change
from kernelevolve.schema.evaluation import Evaluation
from kernelevolve.schema.hardware import Hardware
from kernelevolve.schema.record import Record
from kernelevolve.schema.target import Target


class Seed(Record):
    """A kernel that the target ships as a starting point."""

    name: str
    language: str
    files: dict[str, str]


class Parent(Record):
    """A candidate with what the judge said of it."""

    candidate: Candidate
    evaluation: Evaluation


class Document(Record):
    """A retrieved piece of knowledge."""

    path: str = Field(description="within the knowledge folder, for instance guidance/selection.md")
    title: str = ""
    text: str


class Bottleneck(Record):
    """What holds a parent back most."""

    name: str = Field(
        description="what retrieval goes by: compile, correctness, memory, compute, latency, occupancy, unknown, ..."
    )
    message: str = Field(description="the evidence, in one sentence")


Memory = Literal["inherit", "siblings", "combine", "clean"]
"""What a brief remembers of the run: the parents' own history, what else was made of the same parents, both, or
nothing (a cold start, to leave a local optimum)."""


class Attempt(Record):
    """Something that the run tried already, and how it ended."""

    candidate: str = Field(description="digest; empty where the answer never became a candidate")
    change: Change
    parents: tuple[str, ...] = ()
    label: str
    idea: str = ""
    outcome: Literal["passed", "failed", "triaged", "pending"] = Field(
        description="pending: it is being written or judged at this moment"
    )
    speedup: float | None = Field(None, description="over the fastest baseline; None unless it passed")
    low: float | None = Field(None, description="lower end of the interval of the speed-up")
    high: float | None = Field(None, description="upper end of the interval of the speed-up")
    by_workload_us: dict[str, float] = Field(
        default={}, description="microseconds a call; estimated ones where the run measures nothing"
    )
    finding: str = Field("", description="of a failure: stage and first diagnostic")


class Brief(Record):
    """The task for a proposer: what to make fast, from which parents, by which kind of change."""

    step: int = Field(description="position in the run, from 0")
    target: Target
    hardware: Hardware
    language: str
    change: Change
    parents: tuple[Parent, ...] = ()
    seeds: tuple[Seed, ...] = ()
    memory: Memory = "clean"
    bottleneck: Bottleneck | None = None
    history: tuple[Attempt, ...] = Field((), description="what `memory` lets it know, the most telling first")
    documents: tuple[Document, ...] = Field((), description="the most useful first")
    baseline_us: dict[str, float] = Field(
        default_factory=dict, description="search workload to the time of its fastest baseline, microseconds"
    )
