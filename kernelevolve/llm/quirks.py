"""What a model turns out not to take: learnt from its errors, remembered, said once."""

import logging
import re
from collections.abc import Iterable

from kernelevolve.llm.faults import Fault

_log = logging.getLogger(__name__)

_REJECTION = re.compile(
    r"unsupported|not.{0,20}support|unrecogni[sz]ed|unexpected|unknown|deprecated|not (?:permitted|allowed|available)"
    r"|extra (?:inputs|fields)|doesn't support|no longer|may only be|invalid (?:parameter|argument|field)",
    re.IGNORECASE,
)
_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")
_VALUE_AT_FAULT = re.compile(r"too (?:large|long|many|big|small)|at most|maximum|exceed|greater than|less than", re.I)
_STREAM = "stream"
_FROM_STATUS = (400, 404, 422, 500, 501)
"""Statuses with which servers reject a parameter; 500 and 501 come from local ones (a chat template that fails)."""


class Quirks:
    """Of one model. Begins with what is known of it."""

    def __init__(self, model: str, rejects: Iterable[str]) -> None:
        self._model = model
        self._said: set[str] = set()
        self.without = frozenset(rejects) - {_STREAM}
        self.streams = _STREAM not in rejects

    def learn(self, fault: Fault, sent: Iterable[str], *, streamed: bool) -> bool:
        """Whether the fault is about something that was sent and can be left out; from now on it is."""
        name = rejected(fault, (*sent, *((_STREAM,) if streamed else ())))
        if name is None:
            return False
        if name == _STREAM:
            self.cannot_stream()
        else:
            self.without |= {name}
            self.say_once(f"it rejects {name}, which is left out from now on ({fault.message})")
        return True

    def cannot_stream(self) -> None:
        """The server answers only in one piece."""
        self.streams = False
        self.say_once("its server doesn't stream, so replies are asked for in one piece, and a stall shows late")

    def say_once(self, sentence: str) -> None:
        """Log something about the model, the first time that it turns out."""
        if sentence not in self._said:
            self._said.add(sentence)
            _log.warning("%s: %s", self._model, sentence)


def rejected(fault: Fault, sent: Iterable[str]) -> str | None:
    """The parameter among those sent that a service refuses to take, or None.

    A parameter whose value doesn't suit (a limit that is too high, a prompt that is too long) isn't refused as such.
    """
    if fault.status not in _FROM_STATUS or not (fault.code in _CODES or _REJECTION.search(fault.message)):
        return None
    names = sorted(sent, key=len, reverse=True)  # stream_options before stream
    if fault.param in names:
        return fault.param
    if _VALUE_AT_FAULT.search(fault.message):
        return None
    for name in names:
        if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w-])", fault.message, re.IGNORECASE):
            return name
    if _STREAM in names and "streaming" in fault.message.lower():
        return _STREAM
    return None
