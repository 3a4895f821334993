"""The client of whoever answers by file: a person, or a coding agent."""

import threading
from concurrent.futures import CancelledError
from contextlib import ExitStack

from kernelevolve.runs import Runs
from kernelevolve.schema import Answer, ModelRequest
from kernelevolve.store import SqlStore

_EVERY_S = 0.5
"""Between two looks at the store: seldom enough not to be felt by the kernels that are timed meanwhile."""


class Mailbox:
    """Leaves its questions in the store, and waits there for their answers, however long that takes.

    There is no deadline: a question that nobody answers stays open, in this sitting and in the next. It holds the
    run while it is open, so that one process at a time waits. Raises `UsageError` where another one does.
    """

    def __init__(self, runs: Runs, run: str) -> None:
        self._run = run
        self._closed = threading.Event()
        self._held = ExitStack()
        self._held.enter_context(runs.attended(run))
        # Its own connections: the search's belong to the thread that decides.
        self._store = self._held.enter_context(SqlStore.open(runs.database))

    def complete(self, request: ModelRequest) -> Answer:
        """See `Client`. Raises `CancelledError` once the mailbox is closed; the question then stays open."""
        if self._closed.is_set():
            raise CancelledError(f"the mailbox of run {self._run} is closed")
        self._store.add_question(self._run, request)
        while (answer := self._store.find_answer(self._run, request.step, request.attempt)) is None:
            if self._closed.wait(_EVERY_S):
                raise CancelledError(f"step {request.step} of run {self._run} was not answered yet")
        return answer

    def close(self) -> None:
        """Stop waiting: whoever does is told so at the next look."""
        self._closed.set()
        self._held.close()
