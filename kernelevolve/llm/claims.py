"""Which briefs of a run were handed out already, so that two who ask are not set to the same work."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, Field, ValidationError

from kernelevolve.errors import StoreError
from kernelevolve.schema import Record

LAPSES_AFTER = timedelta(minutes=30)
"""A brief that was handed out so long ago and not answered is handed out again."""


class _Claims(Record):
    """The content of the file."""

    at: dict[str, AwareDatetime] = Field(
        default_factory=dict, description="brief to the last time it was handed out, UTC"
    )


class Claims:
    """One file of one run, shared by every process that hands out its briefs.

    It holds courtesies and no results: a file that was cut off by a crash counts as an empty one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, briefs: Sequence[str], *, again: bool = False) -> str | None:
        """Claim the first of these that is nobody's; with `again`, else the one claimed longest ago."""
        now = datetime.now(UTC)
        with self._locked() as stream:
            at = _read(stream)
            free = [brief for brief in briefs if brief not in at or now - at[brief] > LAPSES_AFTER]
            if not free and again:
                free = sorted(briefs, key=at.__getitem__)
            if not free:
                return None
            _write(stream, {brief: when for brief, when in at.items() if brief in briefs} | {free[0]: now})
            return free[0]

    def at(self) -> dict[str, datetime]:
        """When each brief was handed out last, UTC; those that never were are left out."""
        with self._locked() as stream:
            return _read(stream)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            stream = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(
                f"can't write {self._path}: {error.strerror}",
                remedy="check that you may write to the folder of the run",
            ) from error
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield stream
        finally:
            os.close(stream)


def _read(stream: int) -> dict[str, datetime]:
    try:
        return _Claims.model_validate_json(os.pread(stream, os.fstat(stream).st_size, 0)).at
    except ValidationError:
        return {}


def _write(stream: int, at: dict[str, datetime]) -> None:
    os.ftruncate(stream, 0)
    os.pwrite(stream, _Claims(at=at).model_dump_json().encode(), 0)
