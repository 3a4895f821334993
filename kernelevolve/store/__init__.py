"""What was searched and what came of it, kept across crashes."""

from kernelevolve.store.base import RunSummary, Statistic, Store, UnknownRunError
from kernelevolve.store.sql import SqlStore

__all__ = ["RunSummary", "SqlStore", "Statistic", "Store", "UnknownRunError"]
