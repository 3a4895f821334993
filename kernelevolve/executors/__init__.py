"""Where the harness runs."""

from kernelevolve.executors.base import Executor, judged

__all__ = ["Executor", "judged"]
