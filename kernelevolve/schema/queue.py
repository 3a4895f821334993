"""Candidates that wait for a device which isn't here."""

from pydantic import Field

from kernelevolve.schema.candidate import Candidate
from kernelevolve.schema.estimate import Estimate
from kernelevolve.schema.record import Record


class QueueEntry(Record):
    """A candidate against which nothing was found without the device."""

    candidate: Candidate
    estimates: tuple[Estimate, ...] = Field((), description="by workload; empty where nothing could be estimated")
    estimated_us: float | None = Field(
        None, description="geometric mean of the estimates, microseconds; None unless every workload has one"
    )
    triage: str | None = Field(None, description="digest of what triage found; None for a candidate that had none")


class Queue(Record):
    """Candidates for one target and one kind of device, the one with the best estimate first.

    A file of this leaves its machine, so it names the target by its digest: whoever drains it judges by a target of
    their own, and runs nothing of the queue's but its candidates.
    """

    target: str = Field(description="name")
    target_digest: str
    hardware_key: str
    run: str | None = Field(None, description="the search it comes from")
    created_at: str = Field(description="UTC, ISO 8601")
    kernelevolve: str = Field(description="version that wrote it")
    entries: tuple[QueueEntry, ...]
