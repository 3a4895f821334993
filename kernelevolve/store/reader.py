"""Reads objects within one transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, bindparam, select

from kernelevolve.errors import StoreError
from kernelevolve.schema import Answer, Evaluation, Record
from kernelevolve.store.faults import damaged
from kernelevolve.store.objects import decompress, unpack, unpack_answer, unpack_evaluation
from kernelevolve.store.tables import ObjectRow

R = TypeVar("R", bound=Record)
_BY_DIGEST = select(ObjectRow.data).where(ObjectRow.digest == bindparam("digest"))


class Reader:
    """Fetches objects and makes records of them, each once. Raises `StoreError` for what can't be read."""

    def __init__(self, connection: Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._known: dict[str, bytes] = {}
        self._read: dict[tuple[type[Record], str], Record] = {}
        self._evaluations: dict[str, Evaluation] = {}

    def fetch(self, digest: str) -> bytes:
        """The bytes of a digest, verified."""
        if digest not in self._known:
            data = self._connection.execute(_BY_DIGEST, {"digest": digest}).scalar_one_or_none()
            if data is None:
                raise StoreError(
                    f"{self._path} holds no object {digest}",
                    remedy="check the digest, and that this is the right store",
                )
            try:
                self._known[digest] = decompress(digest, data)
            except ValueError as error:
                raise damaged(self._path, str(error)) from error
        return self._known[digest]

    def record(self, kind: type[R], digest: str) -> R:
        """The record of a digest."""
        found = self._read.get((kind, digest))
        if not isinstance(found, kind):
            with self._readable(digest):
                found = unpack(kind, digest, self)
            self._read[kind, digest] = found
        return found

    def evaluation(self, digest: str) -> Evaluation:
        """The evaluation of a digest."""
        if digest not in self._evaluations:
            with self._readable(digest):
                self._evaluations[digest] = unpack_evaluation(digest, self)
        return self._evaluations[digest]

    def answer(self, digest: str) -> Answer:
        """The answer of a digest."""
        with self._readable(digest):
            return unpack_answer(digest, self)

    @contextmanager
    def _readable(self, digest: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise StoreError(
                f"{self._path} holds a record that this version can't read ({digest}): {error}",
                remedy="read it with the version of kernelevolve that wrote it",
            ) from error
