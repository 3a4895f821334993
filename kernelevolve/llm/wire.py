"""The seam of protocols: one try of one question."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import httpx2

from kernelevolve.schema import ModelRequest

Stop = Literal["end", "length", "refusal"]

Options = Mapping[str, object]
"""Fields of a request's JSON body that a model may reject, by their name there."""


@dataclass(frozen=True)
class Question:
    """A request as it goes out this time."""

    request: ModelRequest
    options: Options
    stream: bool
    timeout: httpx2.Timeout


@dataclass
class Hearing:
    """What has come in so far: it is there even if the try fails half-way."""

    began: bool = False
    """the service has accepted the request, so that it may be paid for"""
    streamed: bool = False
    """it came as a stream"""
    said: list[str] = field(default_factory=list)
    thought: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    stop: Stop | None = None
    """None while the reply isn't finished"""
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def text(self) -> str:
        """Everything that was said, refusals included, without the thinking that came apart from it."""
        return "".join(self.said) or "".join(self.refused)

    def finish(self, stop: Stop) -> None:
        """Note why the reply ended. A refusal stays one, whatever the service calls the end of its text."""
        self.stop = "refusal" if self.refused else stop

    def count(self, input_tokens: int | None, output_tokens: int | None) -> None:
        """Note the usage that the service reports; a later report replaces an earlier one."""
        self.input_tokens = self.input_tokens if input_tokens is None else input_tokens
        self.output_tokens = self.output_tokens if output_tokens is None else output_tokens


class Wire(Protocol):
    """A service, spoken to by one protocol. Used within one event loop."""

    address: str
    """base URL"""
    secrets: tuple[str, ...]
    """keys, for whoever has to keep them out of what is written down"""

    def options(self, request: ModelRequest, without: frozenset[str]) -> Options:
        """What goes into the body beside the essentials; `without` names what the model rejects."""

    async def ask(self, question: Question, hearing: Hearing) -> None:
        """Put the question once, and note what comes in. Raises `Fault`."""

    async def greet(self, timeout: httpx2.Timeout) -> None:
        """Ask for the list of models, which costs nothing. Raises `Fault`."""

    async def close(self) -> None:
        """Let go of connections."""


def is_stream(response: httpx2.Response) -> bool:
    """Whether a service that was asked to stream does."""
    return "json" not in response.headers.get("content-type", "")
