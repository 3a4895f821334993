"""All that a proposer may know."""

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

    path: str
    text: str


class Brief(Record):
    """The task for a proposer: what to make fast, from which parents, by which kind of change."""

    step: int = Field(description="position in the run, from 0")
    target: Target
    hardware: Hardware
    language: str
    change: Change
    parents: tuple[Parent, ...] = ()
    seeds: tuple[Seed, ...] = ()
    documents: tuple[Document, ...] = ()
