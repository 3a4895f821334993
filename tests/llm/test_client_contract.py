import pytest

from kernelevolve.llm.service import Service
from kernelevolve.testing.client_contract import ClientContract


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in (
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "OPENAI_BASE_URL",
        "ANTHROPIC_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)


class ServiceContract(ClientContract):
    def make(self, info, **limits):
        return Service([info], Service.Config(**limits))


class TestChat(ServiceContract):
    protocol = "openai-chat"


class TestResponses(ServiceContract):
    protocol = "openai-responses"


class TestAnthropic(ServiceContract):
    protocol = "anthropic"
