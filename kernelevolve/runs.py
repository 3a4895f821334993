"""The layout of the folder `runs/`: the database, and one folder a run with its report and its queue.

A queue leaves its folder: it is drained on another machine, and what comes of it is written beside it there.
"""

import fcntl
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from kernelevolve.errors import StoreError, UsageError
from kernelevolve.schema import Evaluation, Queue, evaluation_adapter

_GLANCE_S = 1.0
"""Whoever only looks whether a lock is held has it for a moment, which must not be taken for its holder."""


@dataclass(frozen=True)
class ReportPaths:
    """Where the report of a run goes."""

    html: Path
    markdown: Path


@dataclass(frozen=True)
class Runs:
    """The folder that searches leave their results in."""

    folder: Path

    @property
    def database(self) -> Path:
        """The file that the store keeps every run in."""
        return self.folder / "kernelevolve.db"

    @property
    def skills(self) -> Path:
        """The folder of what searches learned."""
        return self.folder / "skills"

    def folder_of(self, run: str) -> Path:
        """The run's own folder, made if need be. Raises `UsageError` for what can't name a folder."""
        if run in {"", ".", ".."} or Path(run).name != run:
            raise UsageError(f"{run!r} can't be the name of a run", remedy="choose one that `runs list` shows")
        folder = self.folder / run
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"can't make the folder {folder}: {error.strerror}",
                remedy="check that you may write there and that the disk has room",
            ) from error
        return folder

    def report_paths(self, run: str) -> ReportPaths:
        """Where the report of a run goes; its folder is there afterwards."""
        folder = self.folder_of(run)
        return ReportPaths(html=folder / "report.html", markdown=folder / "report.md")

    def queue_path(self, run: str) -> Path:
        """Where the queue of a run goes; its folder is there afterwards."""
        return self.folder_of(run) / "queue.json"

    def claims_path(self, run: str) -> Path:
        """Where it is kept which briefs of a run were handed out; its folder is there afterwards."""
        return self.folder_of(run) / "claims.json"

    @contextmanager
    def attended(self, run: str) -> Iterator[None]:
        """Be the one process that waits for answers to a run's briefs. Raises `UsageError` where another does."""
        with _locked(self._attendance(run), patience_s=_GLANCE_S) as mine:
            if not mine:
                raise UsageError(
                    f"run {run} is being searched by another process", remedy="stop that one, or let it end"
                )
            yield

    def is_attended(self, run: str) -> bool:
        """Whether some process waits for answers to the run's briefs just now."""
        with _locked(self._attendance(run)) as free:
            return not free

    def _attendance(self, run: str) -> Path:
        return self.folder_of(run) / "attended"

    def new_name(self, target: str) -> str:
        """A name for a new run of a target: `<target>-<date>-<time>-<four random digits>`, in UTC."""
        return f"{target}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@contextmanager
def _locked(path: Path, patience_s: float = 0.0) -> Iterator[bool]:
    """Whether the lock on a file could be had; it is held for as long as the block lasts, or the process lives."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror}", remedy="check that you may write there") from error
    try:
        until = time.monotonic() + patience_s
        while not (had := _lock(descriptor)) and time.monotonic() < until:
            time.sleep(0.01)
        yield had
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_queue(path: Path, queue: Queue) -> None:
    """Put a queue into a file, whole or not at all. Raises `StoreError`."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(queue.model_dump_json(indent=1))
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError as error:
        raise StoreError(
            f"can't write {path}: {error.strerror}", remedy="check that you may write there and that the disk has room"
        ) from error


def read_queue(path: Path) -> Queue:
    """The queue in a file. Raises `UsageError` for one that isn't there or is damaged."""
    try:
        return Queue.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"can't read {path}: {error.strerror}", remedy="kernelevolve search --triage writes a queue"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{path} is no queue, or a damaged one: {place + ': ' if place else ''}{first['msg']}",
            remedy="copy it once more from the machine that wrote it (kernelevolve search --triage)",
        ) from error


class QueueResults:
    """What came of a queue's candidates: a file beside it, one evaluation a line, each on the disk before the next."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    @contextmanager
    def beside(cls, queue: Path) -> "Iterator[QueueResults]":
        """The results of that queue, for one process at a time. Raises `UsageError` and `StoreError`."""
        path = queue.with_suffix(".results.jsonl")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(
                f"can't write {path}: {error.strerror}", remedy="copy the queue to a folder that you may write to"
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"{path} is in use: the queue is being drained", remedy="wait for it") from error
            yield cls(path, descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> tuple[Evaluation, ...]:
        """Every evaluation so far. A last line that was cut off is removed. Raises `StoreError` for another."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._descriptor, whole)
        found = []
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                found.append(evaluation_adapter.validate_json(line))
            except ValidationError as error:
                raise StoreError(
                    f"{self.path}, line {number}, is no evaluation",
                    remedy="remove the line; what it said is measured again",
                ) from error
        return tuple(found)

    def append(self, evaluation: Evaluation) -> None:
        """Add an evaluation; it survives a crash once this returns. Raises `StoreError`."""
        try:
            os.lseek(self._descriptor, 0, os.SEEK_END)
            line = evaluation_adapter.dump_json(evaluation) + b"\n"
            while line:
                line = line[os.write(self._descriptor, line) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise StoreError(
                f"can't write {self.path}: {error.strerror}", remedy="make room on the disk, then drain the queue again"
            ) from error
