"""A language model: what it can do and costs, what is asked of it, and what comes back."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from kernelevolve.schema.candidate import Usage
from kernelevolve.schema.record import Record

Protocol = Literal["openai-chat", "openai-responses", "anthropic", "mailbox"]
"""How a model is spoken to; `mailbox` is for whoever answers by file: a person, or a coding agent."""


class ModelInfo(Record):
    """What a run knows of a model. Frozen into the run's record, so that old costs stay what they were."""

    name: str = Field(description="as its service calls it")
    protocol: Protocol
    base_url: str | None = Field(None, description="of the service; None means the vendor's own")
    context_tokens: int = Field(128_000, description="prompt and answer together")
    output_tokens: int = Field(16_000, description="of one answer, at most")
    input_usd_per_mtok: float | None = Field(None, description="None where the price isn't known")
    output_usd_per_mtok: float | None = Field(None, description="None where the price isn't known")
    rejects: tuple[str, ...] = Field((), description="request parameters that it refuses, for instance temperature")

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """US dollars for so many tokens; None where a price isn't known."""
        if self.input_usd_per_mtok is None or self.output_usd_per_mtok is None:
            return None
        return (input_tokens * self.input_usd_per_mtok + output_tokens * self.output_usd_per_mtok) / 1e6


class ModelRequest(Record):
    """One question to a model. Equal requests have equal digests, which is what a replay goes by."""

    step: int = Field(description="of the run that it serves")
    attempt: int = Field(0, description="0 for a step's first question, 1 for the one after an unusable reply, ...")
    model: str = Field(description="name of a `ModelInfo`")
    system: str
    prompt: str
    max_output_tokens: int
    temperature: float | None = None


class Reply(Record):
    """What a model said."""

    outcome: Literal["replied"] = "replied"
    text: str = Field(description="without its thinking")
    stop: Literal["end", "length", "refusal"] = Field(description="length: it was cut off by the token limit")
    usage: Usage
    seconds: float = Field(0.0, description="from the first try to the last byte")
    tries: int = Field(1, description="requests that were sent, the successful one included")


class CallFailed(Record):
    """No reply, after every retry that made sense."""

    outcome: Literal["no_reply"] = "no_reply"
    reason: Literal["rate_limit", "server", "timeout", "connection", "empty", "bad_request", "skipped"]
    message: str
    usage: Usage = Usage()
    seconds: float = 0.0
    tries: int = 1


Answer = Annotated[Reply | CallFailed, Field(discriminator="outcome")]
answer_adapter: TypeAdapter[Reply | CallFailed] = TypeAdapter(Answer)
"""Reads an answer back from JSON."""


class Exchange(Record):
    """A question with its answer, as the store keeps it."""

    request: ModelRequest
    answer: Answer
