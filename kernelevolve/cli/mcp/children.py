"""The commands that the server runs in processes of their own: it never judges, or loads a candidate, itself."""

import re
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLong
from threading import Thread
from typing import IO, TypeVar

from pydantic import BaseModel, ValidationError

from kernelevolve.errors import KernelevolveError
from kernelevolve.llm.desk import Standing

M = TypeVar("M", bound=BaseModel)

_NAMED = re.compile(r"run: (\S+)")
"""The line in which a search says what its run is called."""

_KEPT_LINES = 40
_PATIENCE_S = 20.0
"""What a command that was interrupted gets to put its things away."""


class _Complaint(BaseModel):
    message: str
    remedy: str


class _Said(BaseModel):
    """Any document of any command: all but a complaint is left aside."""

    error: _Complaint | None = None


class Ended(BaseModel):
    """What matters of the document of a search."""

    verdict: str = ""
    evaluated: int
    failed: int


class Child:
    """One `kernelevolve` command, with `--json`; it ends at the latest when this process does."""

    def __init__(self, environment: Mapping[str, str], command: str, *words: str) -> None:
        self._command = command
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kernelevolve.cli.tethered", command, "--json", *words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the server; what it runs is ended by `close`
        )
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._run: Future[str | None] = Future()
        self._said: Future[str] = Future()
        Thread(target=self._listen, args=(self._process.stderr,), daemon=True).start()
        Thread(target=self._collect, args=(self._process.stdout,), daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether the command is still at work."""
        return self._process.poll() is None

    def run_name(self, timeout_s: float) -> str:
        """Name of the run that a search began. Raises `KernelevolveError` where it ended, or came to none in time."""
        try:
            name = self._run.result(timeout_s)
        except TooLong:
            self.close()
            raise KernelevolveError(
                f"the search didn't begin within {timeout_s:g} seconds", remedy="try it on a command line"
            ) from None
        if name is None:
            self.outcome(Ended)
            raise self._failure("ended before it began")
        return name

    def outcome(self, kind: type[M]) -> M:
        """The JSON document that the command prints in the end. Raises what it complained of, `KernelevolveError`."""
        said = self._said.result()
        self._process.wait()
        try:
            error = _Said.model_validate_json(said).error
        except ValidationError:
            raise self._failure("didn't end as it should") from None
        if error is not None:
            raise KernelevolveError(error.message, remedy=error.remedy)
        return kind.model_validate_json(said)

    def interrupt(self) -> None:
        """Have the command end as Ctrl-C would."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def close(self) -> None:
        """Interrupt the command, as Ctrl-C would, and wait for its end; one that takes too long is killed."""
        self.interrupt()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _failure(self, how: str) -> KernelevolveError:
        code = self._process.wait()
        last = self._lines[-1] if self._lines else "without a word"
        return KernelevolveError(
            f"{self._command} {how} (exit code {code}): {last}", remedy="run it on a command line to see all of it"
        )

    def _listen(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._lines.append(line.rstrip())
                found = _NAMED.fullmatch(line.strip())
                if found and not self._run.done():
                    self._run.set_result(found[1])
        if not self._run.done():
            self._run.set_result(None)

    def _collect(self, stream: IO[str]) -> None:
        with stream:
            self._said.set_result(stream.read())


class Searches:
    """The searches that this server runs, by the names of their runs."""

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}

    def add(self, run: str, child: Child) -> None:
        """Look after a search that has begun."""
        self._children[run] = child

    def alive(self, run: str) -> bool:
        """Whether this server runs a search of that run just now."""
        child = self._children.get(run)
        return child is not None and child.alive

    def standing(self, run: str, seen: Standing) -> Standing:
        """Where a run stands by what the store shows, and by what is known of our own searches.

        One of ours that is still measuring its baselines waits for no answer yet, but will.
        """
        return "searching" if seen == "stopped" and self.alive(run) else seen

    def failure(self, run: str) -> KernelevolveError | None:
        """What a search of this server's complained of when it ended; None where it didn't, or is at work."""
        child = self._children.get(run)
        if child is None or child.alive:
            return None
        try:
            child.outcome(Ended)
        except KernelevolveError as error:
            return error
        return None

    def stop(self, run: str) -> None:
        """Interrupt a search; it stays resumable."""
        self._children[run].close()

    def close(self) -> None:
        """Interrupt every search. Each stays resumable."""
        for child in self._children.values():
            child.interrupt()
        for child in self._children.values():
            child.close()
