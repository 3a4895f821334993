"""The client of a run: puts each question to the service of its model."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Self

import httpx2
from pydantic import Field
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_any,
    stop_before_delay,
    wait_exponential,
    wait_random,
)

from kernelevolve.errors import UnknownNameError, UsageError
from kernelevolve.llm.call import Call, hidden
from kernelevolve.llm.connect import connect
from kernelevolve.llm.faults import RETRIED, Fault
from kernelevolve.llm.loop import Loop
from kernelevolve.llm.quirks import Quirks
from kernelevolve.llm.wire import Hearing, Question, Wire
from kernelevolve.schema import Answer, ModelInfo, ModelRequest, Record

_log = logging.getLogger(__name__)

_GREETING_S = 10.0
"""For a service to show its list of models."""


class Service:
    """Answers questions to any of the run's models; a `llm.base.Client`.

    It alone retries, and it alone keeps the time: one deadline covers a call with all its tries and waits. Replies
    are streamed, so that a stall or a cut is noticed when it happens. Tokens are counted over all tries of a call,
    by what the service reports; of a try that broke off without a report they are estimated.
    """

    class Config(Record):
        """How long a call may take, and how hard it tries."""

        deadline_s: float = Field(600.0, gt=0, description="of one call, tries and waits included")
        stall_s: float = Field(180.0, gt=0, description="without a byte from the service, before a try is given up")
        connect_s: float = Field(10.0, gt=0, description="to reach the service")
        tries: int = Field(8, ge=1, description="of one call, at most")
        paid_tries: int = Field(3, ge=1, description="of one call that cost tokens and brought nothing, at most")
        first_wait_s: float = Field(1.0, ge=0, description="before the second try; then twice as long each time")
        longest_wait_s: float = Field(60.0, ge=0, description="between two tries, unless the service asks for more")

        @classmethod
        def within(cls, seconds: float | None) -> Self:
            """With another deadline (the usual one for None), and patience with silence in proportion to it."""
            usual = cls()
            if seconds is None:
                return usual
            return cls(deadline_s=seconds, stall_s=seconds * usual.stall_s / usual.deadline_s)

    def __init__(self, models: Sequence[ModelInfo], config: Config | None = None) -> None:
        self._config = config or self.Config()
        self._models = {info.name: info for info in models}
        self._quirks = {info.name: Quirks(info.name, info.rejects) for info in models}
        self._wires: dict[str, Wire] = {}
        self._connecting = threading.Lock()
        self._reached: set[str] = set()
        self._proven: set[str] = set()
        self._loop = Loop()

    def complete(self, request: ModelRequest) -> Answer:
        """The answer, or why there is none, within the deadline.

        Raises `UsageError` for what no later call can mend: no key or a wrong one, no credit, an unknown model, a
        server that was never there. Raises `concurrent.futures.CancelledError` once the client is closed.
        """
        info = self._models.get(request.model)
        if info is None:
            raise UnknownNameError(
                f"this run asks no model called {request.model!r}", remedy=f"its models: {', '.join(self._models)}"
            )
        wire = self._wire(info)
        call = Call(info, request, wire.secrets, self._quirks[info.name])
        return self._loop.run(self._answer(call, wire))

    def greet(self) -> None:
        """Find out what no call could mend, before there is one: it costs nothing.

        Each service is asked for its list of models; one that has none, is busy or is slow to answer is taken as it is.
        Raises `UsageError` for no key or a wrong one, and for a server that isn't there.
        """
        greeted: set[str] = set()
        for info in self._models.values():
            wire = self._wire(info)
            if wire.address not in greeted:
                greeted.add(wire.address)
                self._loop.run(self._greet(info, wire))

    def close(self) -> None:
        """Give up calls under way (they raise `CancelledError`) and let go of connections."""
        self._loop.close(self._disconnect())

    async def _greet(self, info: ModelInfo, wire: Wire) -> None:
        try:
            await wire.greet(httpx2.Timeout(_GREETING_S, connect=self._config.connect_s))
        except Fault as fault:
            said = hidden(fault.message, wire.secrets)
            if fault.kind == "key":
                raise _wrong_key(wire, info.name, said) from None
            if fault.kind == "unreachable":
                raise _nobody_there(wire, said) from None

    async def _disconnect(self) -> None:
        for wire in self._wires.values():
            await wire.close()

    def _wire(self, info: ModelInfo) -> Wire:
        with self._connecting:
            if info.name not in self._wires:
                self._wires[info.name] = connect(info)
            return self._wires[info.name]

    async def _answer(self, call: Call, wire: Wire) -> Answer:
        try:
            async with asyncio.timeout(self._config.deadline_s) as deadline:
                return await self._retrying(call)(self._try, call, wire)
        except Fault as fault:
            if (error := self._beyond_mending(fault, call, wire)) is not None:
                raise error from None
            return call.failed(fault)
        except TimeoutError:
            if not deadline.expired():
                raise
            call.bill()
            return call.failed(Fault("timeout", f"no reply within {self._config.deadline_s:g} s"))

    def _retrying(self, call: Call) -> AsyncRetrying:
        config = self._config

        limit = stop_any(stop_after_attempt(config.tries), stop_before_delay(config.deadline_s))

        def stop(state: RetryCallState) -> bool:
            return call.paid_in_vain >= config.paid_tries or limit(state)

        def worth_another(error: BaseException) -> bool:
            return isinstance(error, Fault) and self._may_pass(error, call)

        return AsyncRetrying(
            retry=retry_if_exception(worth_another),
            stop=stop,
            wait=_waits(config),
            before_sleep=lambda state: _log_retry(state, call),
            reraise=True,
        )

    async def _try(self, call: Call, wire: Wire) -> Answer:
        """One try. What the model rejects is left out at once: that is no failure of the service."""
        quirks = self._quirks[call.info.name]
        while True:
            options = wire.options(call.request, quirks.without)
            question = Question(call.request, options, quirks.streams, self._timeout(stream=quirks.streams))
            hearing = call.begin()
            try:
                await wire.ask(question, hearing)
            except Fault as fault:
                self._note_reached(fault, call, wire)
                if hearing.stop is None:  # else the reply was complete before the connection broke
                    call.bill()
                    if quirks.learn(fault, options, streamed=question.stream):
                        continue
                    return call.refused_or_raise(fault)
            self._note_answered(hearing, question, call, wire)
            call.bill()
            return call.reply()

    def _timeout(self, *, stream: bool) -> httpx2.Timeout:
        """Limits of one try; a reply in one piece may come as late as the deadline."""
        silence = self._config.stall_s if stream else self._config.deadline_s
        return httpx2.Timeout(silence, connect=self._config.connect_s)

    def _note_reached(self, fault: Fault, call: Call, wire: Wire) -> None:
        if fault.kind == "unreachable" and wire.address not in self._reached:
            call.never_there = True
        elif fault.kind != "unreachable":
            self._reached.add(wire.address)

    def _note_answered(self, hearing: Hearing, question: Question, call: Call, wire: Wire) -> None:
        self._reached.add(wire.address)
        self._proven.add(call.info.name)
        if question.stream and not hearing.streamed:
            self._quirks[call.info.name].cannot_stream()

    def _may_pass(self, fault: Fault, call: Call) -> bool:
        return fault.kind in RETRIED and not call.never_there

    def _beyond_mending(self, fault: Fault, call: Call, wire: Wire) -> UsageError | None:
        """The error for what no later call can mend; None for what may have been about this one call."""
        name, said = call.info.name, call.hide(fault.message)
        if fault.kind == "key":
            return _wrong_key(wire, name, said)
        if fault.kind == "credit":
            return UsageError(
                f"{wire.address} has no credit left for {name}: {said}", remedy="pay, then resume the run"
            )
        if fault.kind == "unreachable" and call.never_there:
            return _nobody_there(wire, said)
        if fault.kind == "forbidden" and name not in self._proven:
            return UsageError(f"{wire.address} doesn't let this key use {name}: {said}", remedy=_KEY)
        if fault.kind == "model" and name not in self._proven:
            return UsageError(
                f"{wire.address} knows no model {name!r}: {said}",
                remedy="check the name, and that the address is right (it mostly ends in /v1 for the openai protocols)",
            )
        return None


def _wrong_key(wire: Wire, name: str, said: str) -> UsageError:
    return UsageError(f"{wire.address} refuses the key for {name}: {said}", remedy=_KEY)


def _nobody_there(wire: Wire, said: str) -> UsageError:
    return UsageError(
        f"no server answers at {wire.address}: {said}",
        remedy="start it, or correct the address after @ (it mostly ends in /v1 for the openai protocols)",
    )


def _waits(config: Service.Config) -> Callable[[RetryCallState], float]:
    """Wait as long as the service asks, else twice as long each time, with jitter."""
    backoff = wait_exponential(config.first_wait_s, config.longest_wait_s) + wait_random(0, config.first_wait_s)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Fault) and error.wait_s is not None:
            return error.wait_s
        return backoff(state)

    return wait


def _log_retry(state: RetryCallState, call: Call) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.info("%s: %s; trying again in %.1f s", call.info.name, call.hide(str(error)), state.upcoming_sleep)


_KEY = "check OPENAI_API_KEY or ANTHROPIC_API_KEY, whichever the service reads"
