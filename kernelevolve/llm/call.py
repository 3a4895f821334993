"""One call to a model: its tries, and what they cost."""

import time
from collections.abc import Iterable

from kernelevolve.llm.faults import Fault
from kernelevolve.llm.quirks import Quirks
from kernelevolve.llm.thinking import without_thinking
from kernelevolve.llm.tokens import estimate_tokens
from kernelevolve.llm.wire import Hearing
from kernelevolve.schema import CallFailed, ModelInfo, ModelRequest, Reply, Usage


class Call:
    """Keeps count from the first try to the answer."""

    def __init__(self, info: ModelInfo, request: ModelRequest, secrets: tuple[str, ...], quirks: Quirks) -> None:
        self.info = info
        self.request = request
        self.tries = 0
        self.paid_in_vain = 0
        """tries that cost tokens and brought no reply"""
        self.never_there = False
        """nothing has ever answered at the service's address"""
        self._secrets = secrets
        self._quirks = quirks
        self._hearing: Hearing | None = None
        self._last = Hearing()
        self._input_tokens = 0
        self._output_tokens = 0
        self._began = time.monotonic()

    def begin(self) -> Hearing:
        """One more try."""
        self.tries += 1
        self._hearing = Hearing()
        return self._hearing

    def bill(self) -> None:
        """Count the tokens of the try under way; without one, or once it is counted, do nothing."""
        hearing, self._hearing = self._hearing, None
        if hearing is None or not hearing.began:
            return
        self._last = hearing
        self.paid_in_vain += 1  # a reply ends the call, so nobody looks at this any more
        if hearing.stop is not None and hearing.output_tokens is None:
            self._quirks.say_once("a reply came without a count of its tokens; where there is none they are estimated")
        self._input_tokens += _or_estimate(hearing.input_tokens, self.request.system + self.request.prompt)
        self._output_tokens += _output_tokens(hearing)

    def reply(self) -> Reply:
        """What was said in the try that was just counted. Raises `Fault` where that is no reply."""
        hearing = self._last
        if hearing.stop is None:
            raise Fault("connection", "the stream ended before the reply was finished")
        text = self.hide(without_thinking(hearing.text))
        if not text and hearing.stop == "end":
            raise Fault("empty", "the reply was empty")
        return Reply(text=text, stop=hearing.stop, usage=self._usage(), seconds=self._seconds(), tries=self.tries)

    def refused_or_raise(self, fault: Fault) -> Reply:
        """Some services refuse with an error instead of a reply. Raises any other fault."""
        if fault.kind != "refusal":
            raise fault
        return Reply(
            text=self.hide(fault.message),
            stop="refusal",
            usage=self._usage(),
            seconds=self._seconds(),
            tries=self.tries,
        )

    def failed(self, fault: Fault) -> CallFailed:
        """What is said in place of a reply."""
        return CallFailed(
            reason=_REASONS.get(fault.kind, fault.kind),
            message=f"{self.info.name}: {self.hide(fault.message)}",
            usage=self._usage(),
            seconds=self._seconds(),
            tries=self.tries,
        )

    def hide(self, text: str) -> str:
        """The text without the keys that a service may have echoed."""
        return hidden(text, self._secrets)

    def _usage(self) -> Usage:
        cost = self.info.cost_usd(self._input_tokens, self._output_tokens)
        return Usage(input_tokens=self._input_tokens, output_tokens=self._output_tokens, cost_usd=cost)

    def _seconds(self) -> float:
        return time.monotonic() - self._began


def hidden(text: str, secrets: Iterable[str]) -> str:
    """The text without these."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _output_tokens(hearing: Hearing) -> int:
    """What was reported, but at least what has come: a count from before the end is too low."""
    heard = "".join(hearing.thought) + hearing.text
    if hearing.stop is None:
        return max(hearing.output_tokens or 0, estimate_tokens(heard))
    return _or_estimate(hearing.output_tokens, heard)


def _or_estimate(reported: int | None, text: str) -> int:
    return estimate_tokens(text) if reported is None else reported


_REASONS = {"unreachable": "connection", "model": "bad_request", "forbidden": "bad_request"}
"""Faults that `CallFailed` has no word of its own for."""
