"""Reads objects within one transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, bindparam, select

from kernelevolve.errors import StoreError
from kernelevolve.schema import Evaluation, Record
from kernelevolve.store.faults import damaged
from kernelevolve.store.objects import decompress, unpack, unpack_evaluation
from kernelevolve.store.tables import ObjectRow

R = TypeVar("R", bound=Record)
_BY_DIGEST = select(ObjectRow.data).where(ObjectRow.digest == bindparam("digest"))


class Reader:
    """Fetches objects, each once, and makes records of them. Raises `StoreError` for what can't be read."""

    def __init__(self, connection: Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._known: dict[str, bytes] = {}

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
        with self._readable(digest):
            return unpack(kind, digest, self.fetch)

    def evaluation(self, digest: str) -> Evaluation:
        """The evaluation of a digest."""
        with self._readable(digest):
            return unpack_evaluation(digest, self.fetch)

    @contextmanager
    def _readable(self, digest: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise StoreError(
                f"{self._path} holds a record that this version can't read ({digest}): {error}",
                remedy="read it with the version of kernelevolve that wrote it",
            ) from error
