"""A model client that isn't one: it answers from a list or a function, without a service."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError

from kernelevolve.llm.tokens import estimate_tokens
from kernelevolve.schema import Answer, ModelRequest, Reply, Usage


class ScriptedClient:
    """Gives prepared answers, in order (the last again and again) or by what a function makes of the question.

    Text is a plain reply, whose tokens are estimated and cost nothing. Keeps what it was asked (`requests`) for the
    test to look at.
    """

    def __init__(self, script: Sequence[Answer | str] | Callable[[ModelRequest], Answer | str]) -> None:
        self.requests: list[ModelRequest] = []
        self._script = script
        self._lock = threading.Lock()
        self._closed = False

    def complete(self, request: ModelRequest) -> Answer:
        """The answer that the script has for it."""
        with self._lock:
            if self._closed:
                raise CancelledError
            position = len(self.requests)
            self.requests.append(request)
        script = self._script
        said = script(request) if callable(script) else script[min(position, len(script) - 1)]
        if not isinstance(said, str):
            return said
        asked = estimate_tokens(request.system) + estimate_tokens(request.prompt)
        return Reply(text=said, stop="end", usage=Usage(input_tokens=asked, output_tokens=estimate_tokens(said)))

    def close(self) -> None:
        """Answer nothing any more."""
        self._closed = True
