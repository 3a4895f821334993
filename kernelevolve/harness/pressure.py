"""Cores that are kept busy, for as long as a call takes: a race that usually passes shows then."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60
"""Of CPU time that each process may take in all."""


class Pressure:
    """Processes of ours that do nothing but keep cores busy, one a core. Use as a context manager."""

    def __init__(self, cores: int, launcher: Path) -> None:
        """`launcher` sees to it that they end with the judge."""
        command = [str(launcher), "--cpu", str(SECONDS), "--", "/bin/sh", "-c", "echo; while :; do :; done"]
        self._idlers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(cores)]
        for idler in self._idlers:
            # One that is stopped before the launcher has done its work would outlive a judge that is killed.
            assert idler.stdout is not None
            idler.stdout.read(1)
            idler.stdout.close()
        self._signal(signal.SIGSTOP)

    @contextmanager
    def on(self) -> Iterator[None]:
        """While this holds, who wants a core has to share it."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for idler in self._idlers:
            idler.send_signal(number)

    def __enter__(self) -> "Pressure":
        return self

    def __exit__(self, *_: object) -> None:
        for idler in self._idlers:
            idler.kill()
        for idler in self._idlers:
            idler.wait()
