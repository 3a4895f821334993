import pytest

from kernelevolve.errors import SettingsError, UnknownNameError, UsageError
from kernelevolve.llm.models import known, resolve


@pytest.fixture
def extra(tmp_path):
    def write(text):
        file = tmp_path / "models.toml"
        file.write_text(text)
        return file

    return write


def test_every_model_of_the_table_can_be_asked():
    infos = resolve(tuple(known()))
    assert len(infos) > 10
    for info in infos:
        assert info.base_url is None
        assert info.output_tokens < info.context_tokens
        assert (info.input_usd_per_mtok is None) == (info.output_usd_per_mtok is None)


def test_models_come_in_the_order_in_which_they_are_named():
    names = ("claude-sonnet-5-5", "gpt-6.2-sol")
    assert tuple(info.name for info in resolve(names)) == names
    assert resolve(()) == ()


def test_an_unknown_name_is_refused_with_close_ones_and_with_how_to_name_any_model():
    with pytest.raises(UnknownNameError, match="claude-sonet-5") as caught:
        resolve(["claude-sonet-5"])
    assert "claude-sonnet-5" in caught.value.remedy
    assert "openai-chat:claude-sonet-5@http" in caught.value.remedy
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("spelled", "name", "protocol", "url"),
    [
        ("openai-chat:qwen3:8b@http://localhost:11434/v1", "qwen3:8b", "openai-chat", "http://localhost:11434/v1"),
        ("openai-chat:Qwen/Qwen3-32B@https://h/v1", "Qwen/Qwen3-32B", "openai-chat", "https://h/v1"),
        ("openai-chat:accounts/a@b/m@http://[::1]:80/v1", "accounts/a@b/m", "openai-chat", "http://[::1]:80/v1"),
        ("openai-responses:o9", "o9", "openai-responses", None),
        ("anthropic:next@http://localhost:1", "next", "anthropic", "http://localhost:1"),
        ("mailbox:me", "me", "mailbox", None),
    ],
)
def test_any_model_can_be_named_by_its_protocol(spelled, name, protocol, url):
    (info,) = resolve([spelled])
    assert (info.name, info.protocol, info.base_url) == (name, protocol, url)
    assert info.cost_usd(1, 1) is None, "nobody knows what it costs"


def test_prices_of_the_vendor_are_not_those_of_another_service():
    listed, by_protocol, elsewhere = (
        resolve([name])[0] for name in ("gpt-6-sol", "openai-chat:gpt-6-sol", "openai-chat:gpt-6-sol@http://gateway/v1")
    )
    assert by_protocol.cost_usd(1_000_000, 0) == listed.cost_usd(1_000_000, 0)
    assert by_protocol.protocol == "openai-chat"
    assert elsewhere.cost_usd(1, 1) is None


@pytest.mark.parametrize(
    "spelled", ["openai-chat:", "openai-chat:m@ftp://host/v1", "openai-chat:m@http://", "openai-chat:@http://h/v1"]
)
def test_what_names_no_model_is_refused(spelled):
    with pytest.raises(UsageError):
        resolve([spelled])


def test_an_address_with_a_password_is_refused_without_repeating_it():
    with pytest.raises(UsageError, match="password") as caught:
        resolve(["openai-chat:m@http://me:canary@host/v1"])
    assert "canary" not in str(caught.value)


def test_two_models_of_one_name_are_refused():
    with pytest.raises(UsageError, match="'m'"):
        resolve(["openai-chat:m@http://a/v1", "openai-chat:m@http://b/v1"])


def test_a_file_adds_models_and_corrects_known_ones_field_by_field(extra):
    file = extra("""
        [models."qwen3:8b"]
        protocol = "openai-chat"
        base_url = "http://localhost:11434/v1"
        input_usd_per_mtok = 0.0
        output_usd_per_mtok = 0.0
        [models.claude-haiku-4-5]
        output_tokens = 8000
    """)
    own, corrected = resolve(["qwen3:8b", "claude-haiku-4-5"], file)
    assert own.cost_usd(1000, 1000) == 0
    assert (corrected.output_tokens, corrected.input_usd_per_mtok) == (8000, 1.0)
    (spelled,) = resolve(["openai-chat:qwen3:8b@http://localhost:11434/v1"], file)
    assert spelled == own, "the table holds for the address that it names"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models = 3", "table of tables"),
        ("[model.a]\nprotocol = 'openai-chat'", "key model"),
        ("[models.a]\nprotocl = 'openai-chat'", "protocl"),
        ("[models.a]\noutput_tokens = 5", "protocol"),
        ("[models.a]\nprotocol = 'openai-chat'\noutput_tokens = 'many'", "output_tokens"),
        ("[models.a]\nprotocol = 'openai-chat'\nbase_url = 'localhost'", "localhost"),
        ("[models.a", "not TOML"),
    ],
)
def test_a_file_that_says_what_it_should_not_is_refused(extra, text, said):
    with pytest.raises(UsageError, match=said):
        resolve([], extra(text))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="nowhere"):
        resolve(["gpt-6-sol"], tmp_path / "nowhere.toml")
