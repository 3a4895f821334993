"""A kernel on its way: proposed, then admitted."""

from functools import cached_property
from typing import Literal

from pydantic import Field

from kernelevolve.schema.normal import normalised
from kernelevolve.schema.record import Record, digest_of

Value = int | str
"""A tunable's value."""

Change = Literal["draft", "rewrite", "diff", "repair", "crossover", "retune"]
"""The kind of change that made a candidate out of its parents."""


class Usage(Record):
    """What a proposal cost."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = Field(0.0, description="None where the price isn't known")


class Trouble(Record):
    """Why an answer is no candidate."""

    reason: Literal["no_reply", "refusal", "truncated", "empty", "prose", "malformed_edit"]
    detail: str = Field(description="one sentence, for whoever writes the next answer")


class Lineage(Record):
    """Where a candidate comes from."""

    change: Change = "draft"
    parents: tuple[str, ...] = Field((), description="digests of candidates")
    origin: str = Field("", description="the seed file or the proposer it began with")


class Proposal(Record):
    """An answer to a brief. Not trusted: it is a candidate only once its language admits it."""

    proposer: str
    brief: str = Field(description="digest of the brief that it answers")
    language: str
    files: dict[str, str] = Field(description="relative path to source text")
    tunables: dict[str, Value] = Field(default_factory=dict)
    lineage: Lineage = Lineage()
    idea: str = Field("", description="what was changed and why, in the proposer's words; one or two sentences")
    answer: str = Field("", description="raw text of a model's reply; empty for a tuner")
    model: str | None = Field(None, description="name of the model that wrote it; None for a tuner")
    prompt_digest: str | None = Field(None, description="of the `ModelRequest` that it answers")
    dropped: tuple[str, ...] = Field((), description="parts of the brief that the token limit left no room for")
    usage: Usage = Field(Usage(), description="of every call that went into it")
    trouble: Trouble | None = Field(None, description="why this is no candidate; None where its language decides")


class Candidate(Record):
    """A kernel that parses: sources with their declared tunables, and the values chosen for them."""

    language: str
    files: dict[str, str] = Field(description="relative path to source text, tunables not yet substituted")
    entry: str = Field("run", description="exported function")
    tunables: dict[str, Value] = Field(default_factory=dict)
    lineage: Lineage = Lineage()

    @cached_property
    def family(self) -> str:
        """Digest of the sources alone: candidates that differ only in tunables share it."""
        return digest_of("family", self.language, self.files, self.entry)

    @property
    def label(self) -> str:
        """The candidate in a few words: where it began, and its tunables."""
        values = " ".join(f"{name}={value}" for name, value in self.tunables.items())
        return f"{self.lineage.origin or self.digest[:12]} {values}".strip()

    @cached_property
    def code(self) -> str:
        """Digest of what gets built: two candidates with the same code are the same kernel."""
        return digest_of("code", self.language, self.files, self.entry, self.tunables)

    @cached_property
    def normal(self) -> str:
        """Digest of what a compiler sees of it: candidates that differ in comments and blank space alone share it."""
        return digest_of("normal", self.language, normalised(self.files), self.entry, self.tunables)
