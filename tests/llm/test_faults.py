from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from kernelevolve.llm.service import Service
from kernelevolve.schema import CallFailed, ModelInfo
from kernelevolve.testing.client_contract import a_question
from kernelevolve.testing.model_server import Breaks, Fails, ModelServer


def ask(script, protocol="openai-chat"):
    with ModelServer(script) as server:
        info = ModelInfo(name="m", protocol=protocol, base_url=server.base_url(protocol))
        service = Service([info], Service.Config(deadline_s=5.0, first_wait_s=0.001, tries=2))
        try:
            return service.complete(a_question())
        finally:
            service.close()


def test_the_time_to_wait_may_be_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    answer = ask([Fails(503, "maintenance", retry_after=later)])
    assert isinstance(answer, CallFailed)
    assert (answer.reason, answer.tries) == ("server", 1), "an hour is beyond the deadline"


def test_nonsense_in_place_of_a_time_to_wait_is_ignored():
    answer = ask([Fails(429, retry_after="soon")])
    assert isinstance(answer, CallFailed)
    assert answer.tries == 2


@pytest.mark.parametrize("protocol", ["openai-chat", "openai-responses", "anthropic"])
@pytest.mark.parametrize(
    ("code", "reason"),
    [("overloaded_error", "server"), ("rate_limit_error", "rate_limit"), ("invalid_request_error", "bad_request")],
)
def test_an_error_in_a_stream_has_its_reason_too(protocol, code, reason):
    answer = ask([Breaks("told in the stream", code)], protocol)
    assert isinstance(answer, CallFailed)
    assert answer.reason == reason
    assert "told in the stream" in answer.message
