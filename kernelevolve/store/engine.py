"""Connections to the database file, and how their transactions begin."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

_WRITES = "kernelevolve_writes"
"""How a transaction writes: not at all, or with this value of SQLite's setting `synchronous`."""


_KNOWN, _WRITTEN = "kernelevolve_known", "kernelevolve_written"
"""Digests of objects, kept with a connection: stored for certain, and to be stored by the transaction under way."""


def make_engine(path: Path, *, read_only: bool, timeout_s: float) -> Engine:
    """An engine on one SQLite file. A lock is waited for `timeout_s` seconds."""
    uri = f"file:{quote(str(path.absolute()))}?mode={'ro' if read_only else 'rwc'}"

    def connect() -> sqlite3.Connection:
        # No isolation level: the module's own BEGIN comes too late for a consistent read, see `_begin`.
        connection = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA foreign_keys = ON")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        else:
            _use_write_ahead_log(connection, timeout_s)
        return connection

    engine = create_engine("sqlite+pysqlite://", creator=connect, poolclass=QueuePool)
    event.listen(engine, "begin", _begin)
    return engine


def _use_write_ahead_log(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Where another process is just making the file, SQLite says at once that it is locked: it doesn't wait here."""
    patient = Retrying(
        retry=retry_if_exception_type(sqlite3.OperationalError),
        stop=stop_after_delay(timeout_s),
        wait=wait_fixed(0.02),
        reraise=True,
    )
    patient(connection.execute, "PRAGMA journal_mode = WAL")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database, whatever others write meanwhile."""
    with engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine, *, lasting: bool) -> Iterator[Connection]:
    """A transaction that is committed at the end, or leaves no trace.

    A commit survives the end of the process, however that comes. A lasting one survives a power cut too, with all
    that was committed before: it waits for the disk, which takes milliseconds.
    """
    options = {_WRITES: "FULL" if lasting else "NORMAL"}
    with engine.connect().execution_options(**options) as connection:
        written = connection.info[_WRITTEN] = set[str]()
        with connection.begin():
            yield connection
        _there(connection).update(written)


def absent(connection: Connection, digests: Iterable[str]) -> set[str]:
    """Those of the objects that this connection doesn't know to be stored, and that are from now on if it commits."""
    found = set(digests) - _there(connection)
    connection.info[_WRITTEN].update(found)
    return found


def _there(connection: Connection) -> set[str]:
    """Objects that were committed: none is ever removed."""
    known: set[str] = connection.info.setdefault(_KNOWN, set())
    return known


def _begin(connection: Connection) -> None:
    # A transaction that reads first and then wants to write fails at once if another wrote in between;
    # one that takes the lock at its start waits for its turn.
    writes = connection.get_execution_options().get(_WRITES)
    if writes is not None and connection.info.get(_WRITES) != writes:
        connection.exec_driver_sql(f"PRAGMA synchronous = {writes}")
        connection.info[_WRITES] = writes
    connection.exec_driver_sql("BEGIN" if writes is None else "BEGIN IMMEDIATE")
