"""A model client that isn't one: it answers from a list or a function, without a service."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError

from kernelevolve.schema import Answer, ModelRequest, Reply, Usage


class ScriptedClient:
    """Gives prepared answers (text is a plain reply), in order or by request; the last of a list again and again.

    Keeps what it was asked in `asked`. Its replies cost nothing and have no tokens, unless an answer says otherwise.
    """

    def __init__(self, script: Sequence[Answer | str] | Callable[[ModelRequest], Answer | str]) -> None:
        self.asked: list[ModelRequest] = []
        self._script = script
        self._lock = threading.Lock()
        self._closed = False

    def complete(self, request: ModelRequest) -> Answer:
        """The answer that the script has for it."""
        with self._lock:
            if self._closed:
                raise CancelledError
            position = len(self.asked)
            self.asked.append(request)
        script = self._script
        said = script(request) if callable(script) else script[min(position, len(script) - 1)]
        return Reply(text=said, stop="end", usage=Usage()) if isinstance(said, str) else said

    def close(self) -> None:
        """Answer nothing any more."""
        self._closed = True
