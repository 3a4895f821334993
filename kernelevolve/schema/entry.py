"""What certification leaves behind: an entry for the registry, or a refusal."""

from typing import Literal

from pydantic import Field

from kernelevolve.schema.candidate import Candidate
from kernelevolve.schema.evaluation import Environment, Evaluation, Measurement
from kernelevolve.schema.hardware import Hardware
from kernelevolve.schema.record import Record


class Box(Record):
    """A part of the shape space: element types, and an inclusive range for every axis."""

    dtypes: dict[str, str]
    axes: dict[str, tuple[int, int]]

    def contains(self, axes: dict[str, int], dtypes: dict[str, str]) -> bool:
        """Whether a shape lies inside."""
        return self.dtypes == dtypes and all(low <= axes[name] <= high for name, (low, high) in self.axes.items())


class Provenance(Record):
    """Where an entry comes from."""

    run: str | None = None
    created_at: str = Field(description="UTC, ISO 8601")
    kernelevolve: str = Field(description="version that certified it")


class Entry(Record):
    """A certified kernel: served on `domain`, and nowhere else."""

    target: str = Field(description="name of the target")
    target_digest: str
    hardware: Hardware
    candidate: Candidate
    domain: tuple[Box, ...]
    evidence: tuple[Measurement, ...] = Field(description="every workload that was measured, losses included")
    environment: Environment
    provenance: Provenance
    signature: str | None = None


class Refused(Record):
    """Certification said no."""

    candidate: str = Field(description="digest")
    reason: Literal["failed", "no_win"]
    message: str
    evaluation: Evaluation
