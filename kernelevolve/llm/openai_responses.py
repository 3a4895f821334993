"""The protocol `openai-responses`: the vendor's newer interface, which some compatible servers know too."""

import json

from openai.types.responses import Response, ResponseStreamEvent

from kernelevolve.llm.faults import Fault, of_event
from kernelevolve.llm.openai_client import OpenAIClient
from kernelevolve.llm.wire import Hearing, Options, Question, Stop, is_stream
from kernelevolve.schema import ModelRequest


class OpenAIResponses(OpenAIClient):
    """Responses of one service; nothing is kept there (`store` is false)."""

    def options(self, request: ModelRequest, without: frozenset[str]) -> Options:
        """Temperature, the limit of output tokens, the system message, the wish not to be kept."""
        found = {
            "temperature": request.temperature,
            "max_output_tokens": request.max_output_tokens,
            "instructions": request.system or None,
            "store": False,
        }
        return {name: value for name, value in found.items() if value is not None and name not in without}

    async def _streamed(self, question: Question, hearing: Hearing) -> None:
        stream = await self._client.responses.create(
            model=question.request.model,
            input=_input(question),
            stream=True,
            extra_body=question.options,
            timeout=question.timeout,
        )
        hearing.began = True
        async with stream:
            if not is_stream(stream.response):
                content = json.loads(await stream.response.aread())
                _note_whole(Response.construct(**content), hearing)
                return
            hearing.streamed = True
            async for event in stream:
                _note(event, hearing)

    async def _whole(self, question: Question, hearing: Hearing) -> None:
        response = await self._client.responses.create(
            model=question.request.model,
            input=_input(question),
            extra_body=question.options,
            timeout=question.timeout,
        )
        hearing.began = True
        _note_whole(response, hearing)


def _input(question: Question) -> str:
    request = question.request
    if "instructions" in question.options or not request.system:
        return request.prompt
    return f"{request.system}\n\n{request.prompt}"


def _note(event: ResponseStreamEvent, hearing: Hearing) -> None:
    if event.type == "response.output_text.delta":
        hearing.said.append(event.delta)
    elif event.type == "response.refusal.delta":
        hearing.refused.append(event.delta)
    elif event.type in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
        hearing.thought.append(event.delta)
    elif event.type in ("response.completed", "response.incomplete", "response.failed"):
        _note_whole(event.response, hearing)
    elif event.type == "error":
        raise of_event(event.to_dict())


def _note_whole(response: Response, hearing: Hearing) -> None:
    """A response with everything in it: in place of a stream, or as its last event."""
    if not isinstance(response, Response):
        raise Fault("server", "the service sent no response object")
    if response.usage is not None:
        hearing.count(response.usage.input_tokens, response.usage.output_tokens)
    if response.error is not None:
        raise of_event(response.error.to_dict())
    if not hearing.text:
        _note_output(response, hearing)
    hearing.finish(_stop(response))


def _note_output(response: Response, hearing: Hearing) -> None:
    for item in response.output or ():
        if item.type != "message":
            continue  # reasoning
        for part in item.content:
            if part.type == "output_text":
                hearing.said.append(part.text)
            elif part.type == "refusal":
                hearing.refused.append(part.refusal)


def _stop(response: Response) -> Stop:
    """Raises `Fault` for a response that is over without being an answer."""
    if response.status == "incomplete":
        reason = response.incomplete_details.reason if response.incomplete_details else None
        return "refusal" if reason == "content_filter" else "length"
    if response.status in ("failed", "cancelled"):
        raise Fault("server", f"the service ended the response as {response.status}")
    return "end"
