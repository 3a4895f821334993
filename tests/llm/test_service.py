import logging
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest

from kernelevolve.errors import UnknownNameError, UsageError
from kernelevolve.llm.connect import NO_KEY
from kernelevolve.llm.service import Service
from kernelevolve.schema import CallFailed, ModelInfo, Reply
from kernelevolve.testing.client_contract import a_question
from kernelevolve.testing.model_server import Asked, Breaks, Fails, ModelServer, Says, Stalls, unreliable

PROTOCOLS = ("openai-chat", "openai-responses", "anthropic")
CANARY = "sk-canary-1f2e3d4c5b6a"
QUICK = Service.Config(first_wait_s=0.001, stall_s=0.2, deadline_s=5.0)


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name in ("ANTHROPIC_AUTH_TOKEN", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, CANARY)


def info_of(server, protocol, name="m", **fields):
    return ModelInfo(name=name, protocol=protocol, base_url=server.base_url(protocol), **fields)


def key_of(asked: Asked):
    return asked.headers.get("x-api-key") or asked.headers["authorization"].removeprefix("Bearer ")


@pytest.fixture
def service(request):
    made = []

    def make(*infos, config=QUICK):
        made.append(Service(infos, config))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_each_question_goes_to_the_service_of_its_model(service):
    with ModelServer(["from a"]) as a, ModelServer(["from b"]) as b:
        both = service(info_of(a, "openai-chat", "a"), info_of(b, "anthropic", "b"))
        answers = [both.complete(a_question(model=name)) for name in ("a", "b", "a")]
    assert [answer.text for answer in answers] == ["from a", "from b", "from a"]
    assert (len(a.asked), len(b.asked)) == (2, 1)


def test_a_model_that_the_run_does_not_ask_is_refused(service):
    with ModelServer(["fine"]) as server, pytest.raises(UnknownNameError, match="another"):
        service(info_of(server, "openai-chat")).complete(a_question(model="another"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_key_of_the_environment_is_sent_and_shows_nowhere_else(protocol, service, caplog):
    def echo(asked):
        said = key_of(asked)
        replies = {0: Fails(500, f"no luck, {said}"), 1: Says(f"your key is {said}"), 2: Breaks(f"{said} is bad")}
        return replies.get(asked.number, Fails(401, f"wrong key {said}"))

    caplog.set_level(logging.DEBUG)
    with ModelServer(echo) as server:
        asker = service(info_of(server, protocol))
        first = asker.complete(a_question())
        with pytest.raises(UsageError) as caught:
            asker.complete(a_question(step=1))
    assert {key_of(asked) for asked in server.asked} == {CANARY}
    assert isinstance(first, Reply)
    written = [first.model_dump_json(), str(caught.value), "".join(traceback.format_exception(caught.value))]
    written += [repr(asker), repr(vars(asker)), *(record.getMessage() for record in caplog.records), caplog.text]
    assert "your key is ***" in written[0]
    assert "wrong key ***" in written[1]
    assert not [text for text in written if CANARY in text]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_of_ones_own_needs_no_key(protocol, service, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name)
    with ModelServer(["fine"]) as server:
        service(info_of(server, protocol)).complete(a_question())
    assert key_of(server.asked[0]) == NO_KEY


@pytest.mark.parametrize(
    ("protocol", "variable"),
    [
        ("openai-chat", "OPENAI_API_KEY"),
        ("openai-responses", "OPENAI_API_KEY"),
        ("anthropic", "ANTHROPIC_API_KEY"),
    ],
)
def test_the_vendor_is_not_asked_without_a_key(protocol, variable, service, monkeypatch, tmp_path):
    monkeypatch.delenv(variable)
    monkeypatch.delenv("ANTHROPIC_CONFIG_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="no key for m") as caught:
        service(ModelInfo(name="m", protocol=protocol)).complete(a_question())
    assert variable in caught.value.remedy


def test_a_profile_that_is_not_there_is_an_error_of_the_user(service, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", "/nowhere")
    monkeypatch.setenv("ANTHROPIC_PROFILE", "work")
    with pytest.raises(UsageError, match="work"):
        service(ModelInfo(name="m", protocol="anthropic")).complete(a_question())


def test_a_mailbox_is_no_service(service):
    with pytest.raises(UsageError, match="mailbox"):
        service(ModelInfo(name="m", protocol="mailbox")).complete(a_question())


def test_a_wrong_key_ends_a_run_even_after_good_replies(service):
    with ModelServer(["fine", Fails(401, "revoked")]) as server:
        asker = service(info_of(server, "openai-chat"))
        asker.complete(a_question())
        with pytest.raises(UsageError, match="revoked"):
            asker.complete(a_question(step=1))


@pytest.mark.parametrize("status", [403, 404])
def test_a_model_that_has_answered_before_is_not_taken_for_unknown(status, service):
    with ModelServer(["fine", Fails(status, "not this one")]) as server:
        asker = service(info_of(server, "openai-chat"))
        asker.complete(a_question())
        answer = asker.complete(a_question(step=1))
    assert isinstance(answer, CallFailed)
    assert answer.reason == "bad_request"
    assert answer.tries == 1


@pytest.mark.parametrize("code", ["content_filter", "invalid_prompt", "content_policy_violation"])
def test_a_service_may_refuse_by_an_error(code, service):
    with ModelServer([Fails(400, "this prompt violates a policy", code=code)]) as server:
        answer = service(info_of(server, "openai-chat")).complete(a_question())
    assert isinstance(answer, Reply)
    assert (answer.stop, len(server.asked)) == ("refusal", 1)
    assert "policy" in answer.text


@pytest.mark.parametrize(("rejected", "left"), [("max_tokens", "max_completion_tokens")])
def test_the_limit_of_tokens_goes_by_the_name_that_the_model_takes(rejected, left, service):
    with ModelServer(["fine"], rejects=[rejected]) as server:
        asker = service(info_of(server, "openai-chat"))
        asker.complete(a_question(max_output_tokens=321))
    assert server.asked[0].body[rejected] == 321
    assert server.asked[1].body[left] == 321


def test_a_server_that_reports_no_tokens_gets_them_estimated(service, caplog):
    with ModelServer([Says("ten letters", usage=False)], rejects=["stream_options"]) as server:
        asker = service(info_of(server, "openai-chat", input_usd_per_mtok=1.0, output_usd_per_mtok=1.0))
        answers = [asker.complete(a_question(step=step)) for step in range(3)]
    assert all(answer.usage.output_tokens == 5 for answer in answers)
    assert len([r for r in caplog.records if "without a count of its tokens" in r.getMessage()]) == 1
    assert len(server.asked) == 4


def test_a_chat_template_without_a_system_message_gets_it_with_the_question(service):
    def script(asked):
        return Fails(500, "Jinja Exception: System role not supported") if asked.system else "fine"

    with ModelServer(script) as server:
        answer = service(info_of(server, "openai-chat")).complete(a_question(system="Be brief.", prompt="Go."))
    assert isinstance(answer, Reply)
    assert (server.asked[-1].system, server.asked[-1].prompt) == ("", "Be brief.\n\nGo.")


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 100. This model supports at most 50 completion tokens",
        "This model's maximum context length is 50 tokens. However, you requested 100 tokens",
        "messages: text content blocks must be non-empty",
    ],
)
def test_a_value_that_does_not_suit_is_no_parameter_to_leave_out(message, service):
    with ModelServer([Fails(400, message)]) as server:
        answer = service(info_of(server, "openai-chat")).complete(a_question(temperature=0.5))
    assert isinstance(answer, CallFailed)
    assert (answer.reason, len(server.asked)) == ("bad_request", 1)


@pytest.mark.parametrize(
    ("message", "dropped"),
    [
        ("`temperature` is deprecated for this model.", "temperature"),
        ("Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1)", "temperature"),
        ("temperature: Extra inputs are not permitted", "temperature"),
        ("Unrecognized request argument supplied: stream_options", "stream_options"),
        ("streaming is not supported for this model", "stream"),
    ],
)
def test_rejections_are_told_from_what_vendors_say(message, dropped, service):
    with ModelServer(lambda asked: Fails(400, message) if asked.number == 0 else "fine") as server:
        answer = service(info_of(server, "openai-chat")).complete(a_question(temperature=0.5))
    assert isinstance(answer, Reply)
    first, second = (set(asked.body) for asked in server.asked)
    gone = first - second
    assert gone == ({"stream", "stream_options"} if dropped == "stream" else {dropped})


def test_the_deadline_ends_a_stream_that_never_stops(service):
    """A service may keep the line alive for ever without saying anything."""
    with ModelServer([Stalls("and so on", pings=True)]) as server:
        config = Service.Config(deadline_s=0.6, stall_s=0.2)
        answer = service(info_of(server, "anthropic"), config=config).complete(a_question())
    assert isinstance(answer, CallFailed)
    assert answer.reason == "timeout"
    assert (answer.tries, "0.6 s" in answer.message) == (1, True)


def test_tries_that_cost_tokens_are_few(service):
    """A model that thinks and says nothing is paid for each time."""
    with ModelServer([Says("", thinking="hm")]) as server:
        answer = service(info_of(server, "openai-responses")).complete(a_question())
    assert isinstance(answer, CallFailed)
    assert (answer.reason, answer.tries) == ("empty", QUICK.paid_tries)


def test_an_interrupted_question_is_given_up(tmp_path):
    """Ctrl-C in the thread that waits."""
    script = (
        "import os, signal, threading, time\n"
        "from kernelevolve.llm.service import Service\n"
        "from kernelevolve.schema import ModelInfo\n"
        "from kernelevolve.testing.client_contract import a_question\n"
        "from kernelevolve.testing.model_server import ModelServer, Stalls\n"
        "with ModelServer([Stalls('half a')]) as server:\n"
        "    url = server.base_url('openai-chat')\n"
        "    service = Service([ModelInfo(name='m', protocol='openai-chat', base_url=url)])\n"
        "    def interrupt():\n"
        "        while not server.asked:\n"
        "            time.sleep(.01)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    threading.Thread(target=interrupt).start()\n"
        "    try:\n"
        "        service.complete(a_question())\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted')\n"
        "    service.close()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_on_a_bad_day_every_question_gets_an_answer_or_a_reason(protocol, service):
    with ModelServer(unreliable(lambda asked: f"kernel {asked.prompt}", seed=3)) as server:
        asker = service(info_of(server, protocol))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: asker.complete(a_question(step=n, prompt=str(n))), range(40)))
    whole = [(n, a.text) for n, a in enumerate(answers) if isinstance(a, Reply) and a.text.startswith("kernel")]
    assert all(text == f"kernel {n}" for n, text in whole)
    assert len(whole) >= 25
    assert {a.stop for a in answers if isinstance(a, Reply)} >= {"end", "refusal"}
    assert sum(answer.tries for answer in answers) == len(server.asked)
