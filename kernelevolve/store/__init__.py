"""What was searched and what came of it, kept across crashes."""

from kernelevolve.store.base import (
    Answered,
    Arrival,
    Asked,
    Declined,
    Judged,
    RunSummary,
    Statistic,
    Store,
    UnknownRunError,
)
from kernelevolve.store.sql import SqlStore

__all__ = [
    "Answered",
    "Arrival",
    "Asked",
    "Declined",
    "Judged",
    "RunSummary",
    "SqlStore",
    "Statistic",
    "Store",
    "UnknownRunError",
]
