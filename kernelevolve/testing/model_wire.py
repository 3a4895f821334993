"""How the three protocols of model services put what a fake service says."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

Json = Mapping[str, object]


@dataclass(frozen=True)
class Says:
    """A reply. `thinking` goes where the protocol has a place for it."""

    text: str
    stop: Literal["end", "length", "refusal"] = "end"
    thinking: str = ""
    usage: bool = True

    @property
    def output_tokens(self) -> int:
        """What the fake service counts: words, those of the thinking included."""
        return len(self.text.split()) + len(self.thinking.split())


@dataclass(frozen=True)
class Event:
    """One server-sent event; `data` is JSON, or text that is sent as it is."""

    data: Json | str
    name: str = ""

    def encoded(self) -> bytes:
        """As it goes over the wire."""
        data = self.data if isinstance(self.data, str) else json.dumps(self.data)
        return (f"event: {self.name}\n" if self.name else "").encode() + f"data: {data}\n\n".encode()


@dataclass(frozen=True)
class Parts:
    """A streamed reply: what comes before its text, the text piece by piece, what says that it is finished."""

    opening: tuple[Event, ...]
    pieces: tuple[Event, ...]
    closing: tuple[Event, ...]


@dataclass(frozen=True)
class Words:
    """What a request says in the words of every protocol."""

    model: str
    system: str
    prompt: str

    @property
    def input_tokens(self) -> int:
        """What the fake service counts: words."""
        return len(self.system.split()) + len(self.prompt.split())


class ModelProtocol(ABC):
    """One way of asking a model."""

    name: ClassVar[str]
    path: ClassVar[str]
    base: ClassVar[str]
    """what a base URL has after host and port"""

    @abstractmethod
    def words(self, body: Json) -> Words:
        """Read a request."""

    @abstractmethod
    def whole(self, says: Says, words: Words) -> Json:
        """A reply in one piece."""

    @abstractmethod
    def parts(self, says: Says, words: Words) -> Parts:
        """A reply as a stream."""

    @abstractmethod
    def error(self, status: int, message: str, code: str, param: str) -> Json:
        """The body of an error."""

    @abstractmethod
    def late_error(self, message: str, code: str) -> Event:
        """An error in the middle of a stream."""


def pieces_of(text: str) -> list[str]:
    """A text in up to four pieces."""
    size = max(1, -(-len(text) // 4))
    return [text[at : at + size] for at in range(0, len(text), size)]


class Chat(ModelProtocol):
    """Chat completions."""

    name = "openai-chat"
    path = "/v1/chat/completions"
    base = "/v1"
    _stops: ClassVar = {"end": "stop", "length": "length", "refusal": "content_filter"}

    def words(self, body: Json) -> Words:
        """Read a request."""
        said: dict[str, str] = {}
        messages = body.get("messages")
        assert isinstance(messages, list)
        for message in messages:
            said[message["role"]] = message["content"]
        return Words(model=str(body["model"]), system=said.get("system", ""), prompt=said["user"])

    def whole(self, says: Says, words: Words) -> Json:
        """A reply in one piece."""
        message: dict[str, object] = {"role": "assistant", "content": says.text}
        if says.stop == "refusal":
            message |= {"content": None, "refusal": says.text}
        if says.thinking:
            message["reasoning_content"] = says.thinking
        choice = {"index": 0, "message": message, "finish_reason": self._stops[says.stop]}
        return {**self._base(words, "chat.completion"), "choices": [choice], **self._usage(says, words)}

    def parts(self, says: Says, words: Words) -> Parts:
        """A reply as a stream."""
        place = "refusal" if says.stop == "refusal" else "content"
        thought = [self._chunk(words, {"reasoning_content": piece}) for piece in pieces_of(says.thinking)]
        said = [self._chunk(words, {place: piece}) for piece in pieces_of(says.text)]
        usage = {**self._base(words, "chat.completion.chunk"), "choices": [], **self._usage(says, words)}
        return Parts(
            opening=(self._chunk(words, {"role": "assistant", "content": ""}),),
            pieces=(*thought, *said),
            closing=(
                self._chunk(words, {}, self._stops[says.stop]),
                *([Event(usage)] if says.usage else []),
                Event("[DONE]"),
            ),
        )

    def error(self, status: int, message: str, code: str, param: str) -> Json:
        """The body of an error."""
        detail = {"message": message, "type": "fake_error", "code": code or None, "param": param or None}
        return {"error": detail}

    def late_error(self, message: str, code: str) -> Event:
        """An error in the middle of a stream."""
        return Event({"error": {"message": message, "code": code}})

    def _base(self, words: Words, kind: str) -> dict[str, object]:
        return {"id": "fake", "object": kind, "created": 1, "model": words.model, "system_fingerprint": "fake"}

    def _chunk(self, words: Words, delta: Json, finish: str | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return Event({**self._base(words, "chat.completion.chunk"), "choices": [choice]})

    def _usage(self, says: Says, words: Words) -> Json:
        if not says.usage:
            return {}
        total = words.input_tokens + says.output_tokens
        counts = {
            "prompt_tokens": words.input_tokens,
            "completion_tokens": says.output_tokens,
            "total_tokens": total,
        }
        return {"usage": counts}


class Responses(ModelProtocol):
    """Responses."""

    name = "openai-responses"
    path = "/v1/responses"
    base = "/v1"

    def words(self, body: Json) -> Words:
        """Read a request."""
        return Words(
            model=str(body["model"]), system=str(body.get("instructions") or ""), prompt=str(body.get("input"))
        )

    def whole(self, says: Says, words: Words) -> Json:
        """A reply in one piece."""
        kind, key = ("refusal", "refusal") if says.stop == "refusal" else ("output_text", "text")
        part = {"type": kind, key: says.text, **({"annotations": []} if key == "text" else {})}
        message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
        thought = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": says.thinking}]}
        return self._response(says, words, [thought, message] if says.thinking else [message])

    def parts(self, says: Says, words: Words) -> Parts:
        """A reply as a stream."""
        place = {"item_id": "m", "output_index": 0, "content_index": 0}
        kind = "response.refusal.delta" if says.stop == "refusal" else "response.output_text.delta"
        thought = [
            self._event("response.reasoning_summary_text.delta", item_id="r", output_index=0, summary_index=0, delta=p)
            for p in pieces_of(says.thinking)
        ]
        said = [self._event(kind, **place, delta=piece, logprobs=[]) for piece in pieces_of(says.text)]
        last = "response.incomplete" if says.stop == "length" else "response.completed"
        begun = {**self._response(says, words, []), "status": "in_progress", "usage": None}
        return Parts(
            opening=(self._event("response.created", response=begun),),
            pieces=(*thought, *said),
            closing=(self._event(last, response=self.whole(says, words)),),
        )

    def error(self, status: int, message: str, code: str, param: str) -> Json:
        """The body of an error."""
        return Chat().error(status, message, code, param)

    def late_error(self, message: str, code: str) -> Event:
        """An error in the middle of a stream."""
        return self._event("error", message=message, code=code, param=None)

    def _response(self, says: Says, words: Words, output: list[Json]) -> dict[str, object]:
        usage = {
            "input_tokens": words.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": says.output_tokens,
            "output_tokens_details": {"reasoning_tokens": len(says.thinking.split())},
            "total_tokens": words.input_tokens + says.output_tokens,
        }
        cut = says.stop == "length"
        return {
            "id": "fake", "object": "response", "created_at": 1, "model": words.model, "output": output,
            "status": "incomplete" if cut else "completed", "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage if says.usage else None,
        }  # fmt: skip

    def _event(self, kind: str, **fields: object) -> Event:
        return Event({"type": kind, "sequence_number": 0, **fields}, name=kind)


class Messages(ModelProtocol):
    """Anthropic's messages."""

    name = "anthropic"
    path = "/v1/messages"
    base = ""
    _stops: ClassVar = {"end": "end_turn", "length": "max_tokens", "refusal": "refusal"}
    _errors: ClassVar = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
                         404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}  # fmt: skip

    def words(self, body: Json) -> Words:
        """Read a request."""
        messages = body.get("messages")
        assert isinstance(messages, list)
        return Words(model=str(body["model"]), system=str(body.get("system") or ""), prompt=messages[-1]["content"])

    def whole(self, says: Says, words: Words) -> Json:
        """A reply in one piece."""
        blocks: list[Json] = [{"type": "text", "text": says.text}] if says.text else []
        if says.thinking:
            blocks.insert(0, {"type": "thinking", "thinking": says.thinking, "signature": "fake"})
        return self._message(words, blocks, self._stops[says.stop], self._usage(words, says.output_tokens, says))

    def parts(self, says: Says, words: Words) -> Parts:
        """A reply as a stream."""
        start = self._message(words, [], None, self._usage(words, 0, says))
        delta = {"stop_reason": self._stops[says.stop], "stop_sequence": None}
        usage = {"usage": {"output_tokens": says.output_tokens}} if says.usage else {}
        thought = self._block(0, "thinking", says.thinking, says.thinking) if says.thinking else ()
        text = self._block(1 if says.thinking else 0, "text", says.text, "") if says.text else ()
        return Parts(
            opening=(self._event("message_start", message=start), self._event("ping")),
            pieces=(*thought, *text),
            closing=(self._event("message_delta", delta=delta, **usage), self._event("message_stop")),
        )

    def error(self, status: int, message: str, code: str, param: str) -> Json:
        """The body of an error."""
        return {"type": "error", "error": {"type": code or self._errors.get(status, "api_error"), "message": message}}

    def late_error(self, message: str, code: str) -> Event:
        """An error in the middle of a stream."""
        return self._event("error", error={"type": code, "message": message})

    def _block(self, index: int, kind: str, text: str, signed: str) -> tuple[Event, ...]:
        key = "thinking" if kind == "thinking" else "text"
        empty = {"type": kind, key: "", **({"signature": ""} if signed else {})}
        deltas = [
            self._event("content_block_delta", index=index, delta={"type": f"{kind}_delta", key: piece})
            for piece in pieces_of(text)
        ]
        start = self._event("content_block_start", index=index, content_block=empty)
        return (start, *deltas, self._event("content_block_stop", index=index))

    def _message(self, words: Words, blocks: list[Json], stop: str | None, usage: Json) -> Json:
        return {
            "id": "fake", "type": "message", "role": "assistant", "model": words.model, "content": blocks,
            "stop_reason": stop, "stop_sequence": None, **usage,
        }  # fmt: skip

    def _usage(self, words: Words, output_tokens: int, says: Says) -> Json:
        counts = {"input_tokens": words.input_tokens, "output_tokens": output_tokens}
        return {"usage": counts} if says.usage else {"usage": None}

    def _event(self, kind: str, **fields: object) -> Event:
        return Event({"type": kind, **fields}, name=kind)


PROTOCOLS: tuple[ModelProtocol, ...] = (Chat(), Responses(), Messages())
