import json
from concurrent.futures import CancelledError
from urllib.request import Request, urlopen

import pytest

from kernelevolve.schema import CallFailed
from kernelevolve.testing.client_contract import a_question
from kernelevolve.testing.model_server import ModelServer
from kernelevolve.testing.scripted_client import ScriptedClient


def test_the_server_says_that_it_is_a_fake():
    with ModelServer(["fine"]) as server:
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        url = f"{server.base_url('openai-chat')}/chat/completions"
        with urlopen(Request(url, json.dumps(body).encode(), {"content-type": "application/json"})) as response:
            assert "fake" in response.headers["server"]
            assert json.load(response)["id"] == "fake"


def test_the_server_keeps_what_it_was_asked():
    with ModelServer(lambda asked: f"reply {asked.number} to {asked.prompt}") as server:
        body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
        url = f"{server.base_url('anthropic')}/v1/messages"
        with urlopen(Request(url, json.dumps(body).encode(), {"x-api-key": "k"})) as response:
            assert json.load(response)["content"][0]["text"] == "reply 0 to hello"
    (asked,) = server.asked
    assert (asked.protocol, asked.body["max_tokens"], asked.headers["x-api-key"]) == ("anthropic", 5, "k")


def test_the_scripted_client_answers_from_a_list():
    failed = CallFailed(reason="server", message="told to")
    client = ScriptedClient(["one", failed, "last"])
    answers = [client.complete(a_question(step=step)) for step in range(4)]
    assert [answers[0].text, answers[1], answers[2].text, answers[3].text] == ["one", failed, "last", "last"]
    assert [request.step for request in client.requests] == [0, 1, 2, 3]


def test_the_scripted_client_answers_by_the_question():
    client = ScriptedClient(lambda request: request.prompt.upper())
    assert client.complete(a_question(prompt="louder")).text == "LOUDER"
    client.close()
    with pytest.raises(CancelledError):
        client.complete(a_question())
