"""What the database complains of, in our words and with a remedy."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError, IntegrityError

from kernelevolve.errors import StoreError


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLAlchemy, SQLite and the file system raise about `path` into `StoreError`."""
    try:
        yield
    except IntegrityError as error:
        raise StoreError(
            f"{path} refuses what contradicts it: {error.orig}",
            remedy="rows are never replaced: read what is there, and add a step before what belongs to it",
        ) from error
    except DBAPIError as error:
        raise _fault(path, error.orig) from error
    except (sqlite3.Error, OSError) as error:
        raise _fault(path, error) from error


def damaged(path: Path, what: str) -> StoreError:
    """The error for a store whose content isn't what was written."""
    return StoreError(
        f"{path} is damaged: {what}",
        remedy=f"move the file away to start afresh; `sqlite3 {path.name} .recover` may save what it holds",
    )


def _fault(path: Path, error: BaseException | None) -> StoreError:
    name = getattr(error, "sqlite_errorname", "") or errno.errorcode.get(getattr(error, "errno", None) or 0, "")
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return damaged(path, str(error))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(
            f"{path} is locked by another process",
            remedy="wait for it to end, or find it with `fuser` or `lsof` on the file",
        )
    if name in {"SQLITE_FULL", "ENOSPC", "EDQUOT"}:
        return StoreError(
            f"the disk under {path} is full",
            remedy="free some space and go on with --resume; everything committed before is kept",
        )
    if name.startswith("SQLITE_IOERR"):
        return StoreError(
            f"{path} can't be read or written: {error}",
            remedy="check the disk, its free space and the limit on the size of a file (`ulimit -f`)",
        )
    if name.startswith(
        ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "EACCES", "EPERM", "EROFS", "EEXIST", "ENOTDIR")
    ):
        return StoreError(
            f"{path} can't be opened for this: {error}",
            remedy="check that the folder exists and that you may write to it and to the file",
        )
    return StoreError(f"{path} can't be used: {error}", remedy="check the file and the folder that it lies in")
