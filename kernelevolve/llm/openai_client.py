"""What both protocols of the OpenAI SDK have in common."""

from abc import ABC, abstractmethod

import httpx2
import openai

from kernelevolve.llm.faults import MALFORMED, fault_of
from kernelevolve.llm.wire import Hearing, Question


class OpenAIClient(ABC):
    """One service behind the SDK. What a protocol is about is how a question is put and an answer heard."""

    def __init__(self, client: openai.AsyncOpenAI, secrets: tuple[str, ...]) -> None:
        self._client = client
        self.address = str(client.base_url)
        self.secrets = secrets

    async def ask(self, question: Question, hearing: Hearing) -> None:
        """Put the question once, and note what comes in. Raises `Fault`."""
        try:
            if question.stream:
                await self._streamed(question, hearing)
            else:
                await self._whole(question, hearing)
        except (openai.OpenAIError, httpx2.HTTPError, *MALFORMED) as error:
            raise fault_of(error) from None  # the SDK's own carries the request, and with it the key

    async def greet(self, timeout: httpx2.Timeout) -> None:
        """Ask for the list of models, which costs nothing. Raises `Fault`."""
        try:
            await self._client.models.list(timeout=timeout)
        except (openai.OpenAIError, httpx2.HTTPError, *MALFORMED) as error:
            raise fault_of(error) from None

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.close()

    @abstractmethod
    async def _streamed(self, question: Question, hearing: Hearing) -> None: ...

    @abstractmethod
    async def _whole(self, question: Question, hearing: Hearing) -> None: ...
