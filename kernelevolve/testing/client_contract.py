"""What every client of a model service has to keep to: derive a test class, and say how yours is made.

::

    class TestMyClient(ClientContract):
        protocol = "openai-chat"

        def make(self, info, **limits):
            return MyClient([info], MyClient.Config(**limits))

The suite plays the service with `testing.model_server`, so a new client speaks one of its protocols. `limits` are
`deadline_s`, `stall_s` and `first_wait_s`.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from typing import ClassVar

import pytest

from kernelevolve.errors import UsageError
from kernelevolve.llm.base import Client
from kernelevolve.schema import Answer, CallFailed, ModelInfo, ModelRequest, Reply
from kernelevolve.schema.model import Protocol
from kernelevolve.testing.model_server import (
    Asked,
    Behaviour,
    Breaks,
    Cuts,
    Fails,
    Garbles,
    ModelServer,
    Says,
    Stalls,
    Stops,
)

PASSING: dict[str, Behaviour] = {
    "429": Fails(429, "slow down", retry_after=0.01),
    "500": Fails(500),
    "529": Fails(529, "overloaded"),
    "a stall": Stalls("half a"),
    "a cut": Cuts(),
    "an unfinished stream": Stops(),
    "an error in the stream": Breaks(),
    "no JSON": Garbles(),
    "an empty reply": Says(""),
    "nothing but thinking": Says("<think>so</think>"),
}
"""What may be different the next time."""


class ClientContract:
    """The suite. `protocol` has to be set and `make` to be overridden."""

    protocol: ClassVar[Protocol]

    def make(self, info: ModelInfo, **limits: float) -> Client:
        """A client of one model."""
        raise NotImplementedError

    def info(self, server: ModelServer, **fields: object) -> ModelInfo:
        """The model `m` of a server, at a price of a dollar for a token in and two for one out."""
        known = {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 2e6, "base_url": server.base_url(self.protocol)}
        return ModelInfo.model_validate({"name": "m", "protocol": self.protocol, **known, **fields})

    def ask(self, server: ModelServer, *, deadline_s: float = 10.0, stall_s: float = 0.2, **fields: object) -> Answer:
        """One question, put by a client of its own."""
        return self.ask_often(server, 1, deadline_s=deadline_s, stall_s=stall_s, **fields)[0]

    def ask_often(
        self, server: ModelServer, times: int, *, deadline_s: float = 10.0, stall_s: float = 0.2, **fields: object
    ) -> list[Answer]:
        """Several questions, put by one client."""
        client = self.make(self.info(server), deadline_s=deadline_s, stall_s=stall_s, first_wait_s=0.001)
        try:
            return [client.complete(a_question(step=step, **fields)) for step in range(times)]
        finally:
            client.close()

    def test_a_question_is_answered(self) -> None:
        """Its words arrive, and so do those of the reply, with their price."""
        with ModelServer(["a fine kernel"]) as server:
            answer = self.ask(server, system="Be brief.", prompt="Write a kernel.", max_output_tokens=77)
        assert isinstance(answer, Reply)
        assert (answer.text, answer.stop, answer.tries) == ("a fine kernel", "end", 1)
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 3)
        assert answer.usage.cost_usd == pytest.approx(5 + 2 * 3)
        (asked,) = server.asked
        assert (asked.model, asked.system, asked.prompt) == ("m", "Be brief.", "Write a kernel.")
        assert 77 in asked.body.values()

    def test_a_question_may_have_no_system_message_and_a_temperature(self) -> None:
        """Both are optional, and neither is made up."""
        with ModelServer(["fine"]) as server:
            self.ask(server, system="", temperature=0.25)
            self.ask(server)
        first, second = server.asked
        assert (first.system, first.body["temperature"]) == ("", 0.25)
        assert "temperature" not in second.body

    @pytest.mark.parametrize("trouble", PASSING)
    def test_what_passes_is_tried_again(self, trouble: str) -> None:
        """The reply says how many requests it took."""
        with ModelServer([PASSING[trouble], "fine"]) as server:
            answer = self.ask(server)
        assert isinstance(answer, Reply), answer
        assert (answer.text, answer.tries, len(server.asked)) == ("fine", 2, 2)

    @pytest.mark.parametrize(
        ("trouble", "reason"),
        [("429", "rate_limit"), ("500", "server"), ("a stall", "timeout"), ("a cut", "connection"),
         ("an unfinished stream", "connection"), ("no JSON", "server"), ("an empty reply", "empty")],
    )  # fmt: skip
    def test_what_does_not_pass_is_a_value_with_its_reason(self, trouble: str, reason: str) -> None:
        """After so many tries that it was worth it."""
        with ModelServer([PASSING[trouble]]) as server:
            answer = self.ask(server)
        assert isinstance(answer, CallFailed), answer
        assert (answer.reason, answer.tries) == (reason, len(server.asked))
        assert 1 < len(server.asked) < 20
        assert "m: " in answer.message

    def test_what_the_service_asks_to_wait_is_waited(self) -> None:
        """Unless that is longer than the call may take: then nobody waits at all."""
        with ModelServer([Fails(429, "slow down", retry_after=0.3), "fine"]) as server:
            patient = self.ask(server)
        with ModelServer([Fails(429, "slow down", retry_after=3600)]) as server:
            hasty = self.ask(server)
        assert isinstance(patient, Reply)
        assert patient.seconds >= 0.3
        assert isinstance(hasty, CallFailed)
        assert (hasty.reason, hasty.tries) == ("rate_limit", 1)
        assert "3.6e+03 s" in hasty.message or "3600" in hasty.message

    def test_one_deadline_covers_all_tries(self) -> None:
        """However the service spends the time."""
        with ModelServer([Stalls("half a")]) as server:
            answer = self.ask(server, deadline_s=0.4, stall_s=30.0)
        assert isinstance(answer, CallFailed)
        assert answer.reason == "timeout"
        assert answer.usage.input_tokens > 0, "a reply that had begun is paid for"

    def test_a_refusal_is_a_reply(self) -> None:
        """It isn't asked for again."""
        with ModelServer([Says("I can't help with that.", stop="refusal")]) as server:
            answer = self.ask(server)
        assert isinstance(answer, Reply)
        assert (answer.stop, answer.text, len(server.asked)) == ("refusal", "I can't help with that.", 1)

    def test_a_truncated_reply_says_so(self) -> None:
        """Even one that never got beyond its thinking."""
        with ModelServer([Says("half a kernel", stop="length"), Says("", stop="length", thinking="hm")]) as server:
            half, nothing = self.ask_often(server, 2)
        assert isinstance(half, Reply)
        assert isinstance(nothing, Reply)
        assert (half.text, half.stop) == ("half a kernel", "length")
        assert (nothing.text, nothing.stop) == ("", "length")

    @pytest.mark.parametrize(
        "says",
        [Says("the kernel", thinking="what would be fast"), Says("<think>what would be fast</think>\n\nthe kernel"),
         Says("what would be fast</think>the kernel")],
    )  # fmt: skip
    @pytest.mark.parametrize("streams", ["yes", "ignores"])
    def test_thinking_is_no_part_of_the_text(self, says: Says, streams: str) -> None:
        """Wherever the service puts it. It is paid for all the same."""
        with ModelServer([says], streams=streams) as server:  # type: ignore[arg-type]
            answer = self.ask(server)
        assert isinstance(answer, Reply)
        assert answer.text == "the kernel"
        assert answer.usage.output_tokens > 2

    @pytest.mark.parametrize("streams", ["refuses", "ignores"])
    def test_a_server_that_cannot_stream_is_asked_in_one_piece(
        self, streams: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """From then on, and the log says so once."""
        with ModelServer([Says("first", usage=True), "second", "third"], streams=streams) as server:  # type: ignore[arg-type]
            answers = self.ask_often(server, 3)
        assert [answer.text for answer in answers if isinstance(answer, Reply)] == ["first", "second", "third"]
        assert [asked.stream for asked in server.asked].count(True) == 1
        assert len([record for record in caplog.records if "stream" in record.getMessage()]) == 1

    def test_what_goes_wrong_in_one_piece_is_tried_again_too(self) -> None:
        """Broken JSON, a connection that breaks, a status that passes."""
        with ModelServer([Garbles(), Cuts(), Breaks(), "fine"], streams="refuses") as server:
            answer = self.ask(server)
        assert isinstance(answer, Reply), answer
        assert answer.text == "fine"

    def test_a_parameter_that_the_model_rejects_is_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        """From then on, and the log says so once."""
        with ModelServer(["fine"], rejects=["temperature"]) as server:
            answers = self.ask_often(server, 3, temperature=0.5)
        assert all(isinstance(answer, Reply) for answer in answers)
        assert ["temperature" in asked.body for asked in server.asked] == [True, False, False, False]
        assert len([record for record in caplog.records if "temperature" in record.getMessage()]) == 1

    def test_a_parameter_that_the_model_is_known_to_reject_is_never_sent(self) -> None:
        """The table of models says so."""
        with ModelServer(["fine"], rejects=["temperature"]) as server:
            client = self.make(self.info(server, rejects=("temperature",)), deadline_s=10.0)
            client.complete(a_question(temperature=0.5))
            client.close()
        assert len(server.asked) == 1

    def test_a_request_that_cannot_be_right_is_asked_once(self) -> None:
        """And is a value: the next one may be shorter."""
        with ModelServer([Fails(400, "the prompt is longer than the context of 4096 tokens")]) as server:
            answer = self.ask(server)
        assert isinstance(answer, CallFailed)
        assert (answer.reason, len(server.asked)) == ("bad_request", 1)
        assert "4096" in answer.message

    @pytest.mark.parametrize(
        ("script", "options", "said"),
        [
            (["fine"], {"key": "another"}, "key"),
            (["fine"], {"models": ["another"]}, "no model 'm'"),
            ([Fails(403, "not for you")], {}, "not for you"),
            ([Fails(402, "pay first")], {}, "credit"),
            ([Fails(429, "you are over your quota", code="insufficient_quota")], {}, "credit"),
        ],
    )
    def test_what_no_later_call_can_mend_is_an_error_with_a_remedy(
        self, script: list[Behaviour | str], options: dict[str, object], said: str
    ) -> None:
        """Asked once, with the service's own words and exit code 2."""
        with ModelServer(script, **options) as server, pytest.raises(UsageError, match=said) as caught:  # type: ignore[arg-type]
            self.ask(server)
        assert len(server.asked) == 1
        assert caught.value.remedy

    def test_a_server_that_was_never_there_is_an_error(self) -> None:
        """With its address."""
        with ModelServer(["fine"]) as server:
            address = server.base_url(self.protocol)
        with pytest.raises(UsageError, match=address):
            self.ask(server)

    def test_a_server_that_has_gone_is_a_failed_call(self) -> None:
        """It may come back: the run goes on."""
        with ModelServer(["fine"]) as server:
            client = self.make(self.info(server), deadline_s=0.5, first_wait_s=0.001)
            client.complete(a_question())
        answer = client.complete(a_question(step=1))
        client.close()
        assert isinstance(answer, CallFailed)
        assert answer.reason in ("connection", "timeout")

    def test_what_was_paid_in_vain_is_counted(self) -> None:
        """An empty reply costs as much as a full one."""
        with ModelServer([Says("", thinking="hm hm hm"), "fine"]) as server:
            answer = self.ask(server, system="", prompt="a b c d")
        assert isinstance(answer, Reply)
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (8, 4)

    def test_questions_overlap(self) -> None:
        """A client is used from several threads; each gets its own answer."""
        together = threading.Barrier(4, timeout=5)

        def meet(asked: Asked) -> str:
            together.wait()
            return f"answer to {asked.prompt}"

        with ModelServer(meet) as server:
            client = self.make(self.info(server), deadline_s=10.0)
            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(client.complete, [a_question(prompt=f"p{n}") for n in range(4)]))
            client.close()
        assert [a.text for a in answers if isinstance(a, Reply)] == [f"answer to p{n}" for n in range(4)]

    def test_close_gives_up_calls_under_way(self) -> None:
        """Whatever they are waiting for."""
        for script in ([Stalls("half a")], [Fails(429, retry_after=5.0)]):
            with ModelServer(script) as server, ThreadPoolExecutor(1) as pool:
                client = self.make(self.info(server), deadline_s=30.0, stall_s=30.0)
                call = pool.submit(client.complete, a_question())
                _until(lambda server=server: bool(server.asked))  # type: ignore[misc]
                client.close()
                with pytest.raises(CancelledError):
                    call.result(timeout=5)

    def test_a_closed_client_answers_nothing(self) -> None:
        """And may be closed again."""
        with ModelServer(["fine"]) as server:
            client = self.make(self.info(server))
            client.close()
            client.close()
            with pytest.raises(CancelledError):
                client.complete(a_question())


def a_question(**fields: object) -> ModelRequest:
    """A question to the model `m`."""
    usual = {"step": 0, "model": "m", "system": "Be brief.", "prompt": "Write a kernel.", "max_output_tokens": 100}
    return ModelRequest.model_validate({**usual, **fields})


def _until(there: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread, 5 s at most."""
    pause = threading.Event()
    for _ in range(500):
        if there():
            return
        with suppress(TimeoutError):
            pause.wait(0.01)
    raise AssertionError("it never happened")
