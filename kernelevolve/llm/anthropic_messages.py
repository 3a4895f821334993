"""The protocol `anthropic`: messages."""

import json

import anthropic
import httpx2
from anthropic.types import Message, RawMessageStreamEvent

from kernelevolve.llm.faults import MALFORMED, Fault, fault_of, of_event
from kernelevolve.llm.wire import Hearing, Options, Question, Stop, is_stream
from kernelevolve.schema import ModelRequest

_STOPS: dict[str, Stop] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}
"""Stop reasons that aren't simply the end."""


class AnthropicMessages:
    """Messages of one service. Temperature goes into the body directly: the SDK has no argument for it any more."""

    def __init__(self, client: anthropic.AsyncAnthropic, secrets: tuple[str, ...]) -> None:
        self._client = client
        self.address = str(client.base_url)
        self.secrets = secrets

    def options(self, request: ModelRequest, without: frozenset[str]) -> Options:
        """Temperature and the system message; the limit of output tokens has to be there."""
        found = {"temperature": request.temperature, "system": request.system or None}
        return {name: value for name, value in found.items() if value is not None and name not in without}

    async def ask(self, question: Question, hearing: Hearing) -> None:
        """Put the question once, and note what comes in. Raises `Fault`."""
        try:
            if question.stream:
                await self._streamed(question, hearing)
            else:
                await self._whole(question, hearing)
        except anthropic.CredentialsError as error:
            raise Fault("key", str(error)) from None
        except (anthropic.AnthropicError, httpx2.HTTPError, *MALFORMED) as error:
            raise fault_of(error) from None  # the SDK's own carries the request, and with it the key

    async def greet(self, timeout: httpx2.Timeout) -> None:
        """Ask for the list of models, which costs nothing. Raises `Fault`."""
        try:
            await self._client.models.list(timeout=timeout)
        except (anthropic.AnthropicError, httpx2.HTTPError, *MALFORMED) as error:
            raise fault_of(error) from None

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.close()

    async def _streamed(self, question: Question, hearing: Hearing) -> None:
        stream = await self._client.messages.create(
            model=question.request.model,
            max_tokens=question.request.max_output_tokens,
            messages=[{"role": "user", "content": _content(question)}],
            stream=True,
            extra_body=question.options,
            timeout=question.timeout,
        )
        hearing.began = True
        async with stream:
            if not is_stream(stream.response):
                content = json.loads(await stream.response.aread())
                _note_whole(Message.construct(**content), hearing)
                return
            hearing.streamed = True
            async for event in stream:
                _note(event, hearing)

    async def _whole(self, question: Question, hearing: Hearing) -> None:
        message = await self._client.messages.create(
            model=question.request.model,
            max_tokens=question.request.max_output_tokens,
            messages=[{"role": "user", "content": _content(question)}],
            extra_body=question.options,
            timeout=question.timeout,
        )
        hearing.began = True
        _note_whole(message, hearing)


def _content(question: Question) -> str:
    request = question.request
    if "system" in question.options or not request.system:
        return request.prompt
    return f"{request.system}\n\n{request.prompt}"


def _note(event: RawMessageStreamEvent, hearing: Hearing) -> None:
    if event.type == "message_start":
        _note_usage(event.message, hearing)
    elif event.type == "content_block_delta":
        if event.delta.type == "text_delta":
            hearing.said.append(event.delta.text)
        elif event.delta.type == "thinking_delta":
            hearing.thought.append(event.delta.thinking)
    elif event.type == "message_delta":
        hearing.count(None, event.usage.output_tokens if event.usage else None)
        if event.delta.stop_reason:
            hearing.finish(_STOPS.get(event.delta.stop_reason, "end"))


def _note_whole(message: Message, hearing: Hearing) -> None:
    if not isinstance(message, Message):
        raise Fault("server", "the service sent no message")
    if message.content is None:
        raise of_event(message.to_dict())
    for block in message.content:
        if block.type == "text":
            hearing.said.append(block.text)
        elif block.type == "thinking":
            hearing.thought.append(block.thinking)
    _note_usage(message, hearing)
    hearing.finish(_STOPS.get(message.stop_reason or "", "end"))


def _note_usage(message: Message, hearing: Hearing) -> None:
    """Tokens read from a cache or written to it count as input."""
    if (usage := message.usage) is None:
        return
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    hearing.count(usage.input_tokens + cached, usage.output_tokens)
