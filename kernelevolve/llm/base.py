"""The seam of whoever answers questions to a language model."""

from typing import Protocol

from kernelevolve.schema import Answer, ModelRequest


class Client(Protocol):
    """Answers questions. Used from several threads at once."""

    def complete(self, request: ModelRequest) -> Answer:
        """The answer, or why there is none, within the client's one deadline.

        What a service does wrong is a value. Raises `UsageError` for what no later call can mend: no key, a
        wrong key, an unknown model, a server that was never there. Raises `concurrent.futures.CancelledError` for a
        call that `close` gave up, and for any after it.
        """

    def close(self) -> None:
        """Give up calls under way and let go of connections. May be called again."""
