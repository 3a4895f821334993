"""The protocol `openai-chat`: chat completions, which every compatible server knows."""

import json

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.completion_usage import CompletionUsage

from kernelevolve.llm.faults import Fault, of_event
from kernelevolve.llm.openai_client import OpenAIClient
from kernelevolve.llm.wire import Hearing, Options, Question, Stop, is_stream
from kernelevolve.schema import ModelRequest

_STOPS: dict[str, Stop] = {"length": "length", "content_filter": "refusal"}
"""Finish reasons that aren't simply the end."""


class OpenAIChat(OpenAIClient):
    """Chat completions of one service.

    The limit of output tokens has two names: `max_completion_tokens` with the vendor, `max_tokens` with most
    compatible servers (some ignore the former without a word). Whichever is rejected gives way to the other. A
    server whose chat template knows no system message (`system` rejected) gets it in front of the question.
    """

    def __init__(self, client: openai.AsyncOpenAI, secrets: tuple[str, ...], *, vendor: bool) -> None:
        super().__init__(client, secrets)
        self._limits = ("max_completion_tokens", "max_tokens") if vendor else ("max_tokens", "max_completion_tokens")

    def options(self, request: ModelRequest, without: frozenset[str]) -> Options:
        """Temperature, the limit of output tokens, the wish for a count of tokens, the system message."""
        limit = next((name for name in self._limits if name not in without), None)
        found: dict[str, object] = {
            "temperature": request.temperature,
            "stream_options": {"include_usage": True},
            "system": request.system or None,
        }
        if limit:
            found[limit] = request.max_output_tokens
        return {name: value for name, value in found.items() if value is not None and name not in without}

    async def _streamed(self, question: Question, hearing: Hearing) -> None:
        stream = await self._client.chat.completions.create(
            model=question.request.model,
            messages=_messages(question),
            stream=True,
            extra_body=_body(question.options),
            timeout=question.timeout,
        )
        hearing.began = True
        async with stream:
            if not is_stream(stream.response):
                content = json.loads(await stream.response.aread())
                _note_whole(ChatCompletion.construct(**content), hearing)
                return
            hearing.streamed = True
            async for chunk in stream:
                _note(chunk, hearing)

    async def _whole(self, question: Question, hearing: Hearing) -> None:
        options = {name: value for name, value in question.options.items() if name != "stream_options"}
        completion = await self._client.chat.completions.create(
            model=question.request.model,
            messages=_messages(question),
            extra_body=_body(options),
            timeout=question.timeout,
        )
        hearing.began = True
        _note_whole(completion, hearing)


def _messages(question: Question) -> list[ChatCompletionMessageParam]:
    request = question.request
    if "system" in question.options:
        return [{"role": "system", "content": request.system}, {"role": "user", "content": request.prompt}]
    together = "\n\n".join(part for part in (request.system, request.prompt) if part)
    return [{"role": "user", "content": together}]


def _body(options: Options) -> dict[str, object]:
    return {name: value for name, value in options.items() if name != "system"}


def _note(chunk: ChatCompletionChunk, hearing: Hearing) -> None:
    """Read leniently: the SDK doesn't check what a compatible server sends."""
    for choice in chunk.choices or ():
        if (delta := choice.delta) is not None:
            _add(delta.content, hearing.said)
            _add(delta.refusal, hearing.refused)
            _add(getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None), hearing.thought)
        if choice.finish_reason:
            hearing.finish(_STOPS.get(choice.finish_reason, "end"))
    _note_usage(chunk.usage, hearing)


def _note_whole(completion: ChatCompletion, hearing: Hearing) -> None:
    if not isinstance(completion, ChatCompletion):
        raise Fault("server", "the service sent no chat completion")
    choices = getattr(completion, "choices", None)
    if not choices:
        error = getattr(completion, "error", None)
        raise of_event(error) if error else Fault("server", "the service sent a chat completion without choices")
    choice = completion.choices[0]
    _add(choice.message.content, hearing.said)
    _add(choice.message.refusal, hearing.refused)
    _add(getattr(choice.message, "reasoning_content", None), hearing.thought)
    _note_usage(completion.usage, hearing)
    hearing.finish(_STOPS.get(choice.finish_reason, "end"))


def _note_usage(usage: CompletionUsage | None, hearing: Hearing) -> None:
    if usage is not None:
        hearing.count(usage.prompt_tokens, usage.completion_tokens)


def _add(text: object, parts: list[str]) -> None:
    if isinstance(text, str) and text:
        parts.append(text)
