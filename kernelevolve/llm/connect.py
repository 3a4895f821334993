"""How a service is reached: SDK clients, with keys from where the SDKs themselves look for them.

Keys come from OPENAI_API_KEY, ANTHROPIC_API_KEY and the other places that the SDKs document, and are never kept
elsewhere. A server of one's own that wants no key gets `NO_KEY`. The SDKs' own retries are off: a call has one owner
of retries, the `Service`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from kernelevolve.errors import UsageError
from kernelevolve.llm.wire import Wire
from kernelevolve.schema import ModelInfo

if TYPE_CHECKING:
    import openai

NO_KEY = "no-key"
"""What is sent to a server of one's own where the environment has no key."""


def connect(info: ModelInfo) -> Wire:
    """The wire to a model's service. Loads the SDK. Raises `UsageError` where there is no key."""
    return _WIRES[info.protocol](info)


def _chat(info: ModelInfo) -> Wire:
    from kernelevolve.llm.openai_chat import OpenAIChat

    client, secrets = _openai(info)
    return OpenAIChat(client, secrets, vendor=info.base_url is None)


def _responses(info: ModelInfo) -> Wire:
    from kernelevolve.llm.openai_responses import OpenAIResponses

    client, secrets = _openai(info)
    return OpenAIResponses(client, secrets)


def _openai(info: ModelInfo) -> "tuple[openai.AsyncOpenAI, tuple[str, ...]]":
    import openai

    try:
        client = openai.AsyncOpenAI(base_url=info.base_url, max_retries=0)
    except openai.OpenAIError:
        if info.base_url is None:
            raise _no_key(info, "OPENAI_API_KEY") from None
        client = openai.AsyncOpenAI(base_url=info.base_url, max_retries=0, api_key=NO_KEY)
    return client, _secrets(client.api_key, client.admin_api_key)


def _anthropic(info: ModelInfo) -> Wire:
    import anthropic

    from kernelevolve.llm.anthropic_messages import AnthropicMessages

    try:
        client = anthropic.AsyncAnthropic(base_url=info.base_url, max_retries=0)
        found = bool(client.api_key or client.auth_token or client.credentials)
    except anthropic.CredentialsError as error:
        raise UsageError(f"there is no key for {info.name}: {error}", remedy="export ANTHROPIC_API_KEY") from None
    if not found and info.base_url is None:
        raise _no_key(info, "ANTHROPIC_API_KEY")
    if not found:
        client = anthropic.AsyncAnthropic(base_url=info.base_url, max_retries=0, api_key=NO_KEY)
    return AnthropicMessages(client, _secrets(client.api_key, client.auth_token))


def _mailbox(info: ModelInfo) -> Wire:
    raise UsageError(
        f"{info.name} is asked through a mailbox, and no service is called for that", remedy="use the proposer agent"
    )


def _no_key(info: ModelInfo, variable: str) -> UsageError:
    return UsageError(
        f"there is no key for {info.name}",
        remedy=f"export {variable}, or name a server of your own, as in {info.protocol}:{info.name}@http://host:8000/v1",
    )


def _secrets(*keys: str | None) -> tuple[str, ...]:
    return tuple(key for key in keys if key and key != NO_KEY)


_WIRES: dict[str, Callable[[ModelInfo], Wire]] = {
    "openai-chat": _chat,
    "openai-responses": _responses,
    "anthropic": _anthropic,
    "mailbox": _mailbox,
}
