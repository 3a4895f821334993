"""Who may use the cores: timing has them to itself, everything else shares them.

The lock is a file, so that it also holds between several kernelevolve processes on one machine.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernelevolve.errors import JudgeError


class Machine:
    """The cores of this machine, for one judge."""

    def __init__(self, cache_dir: Path) -> None:
        self._path = cache_dir / "timing.lock"
        self._gate = cache_dir / "timing.gate"
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            self._path.touch()
        except OSError as error:
            raise JudgeError(
                f"can't write {self._path}: {error}", remedy="set `cache` to a folder that can be written"
            ) from error
        self.waited_s = 0.0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Building and checking: any number at once, none while somebody times."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Timing: nobody else builds, checks or times meanwhile."""
        with self._locked(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        started = time.monotonic()
        try:
            # Who wants the cores for himself waits at the gate, and those who come after him behind him: otherwise
            # a few searches that build and check by turns would keep him out for good.
            gate = os.open(self._gate, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(gate, fcntl.LOCK_EX)
                fcntl.flock(fd, kind)
            finally:
                os.close(gate)
            self.waited_s += time.monotonic() - started
            yield
        finally:
            os.close(fd)
