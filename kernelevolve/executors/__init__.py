"""Where the harness runs."""

from kernelevolve.executors.base import Executor

__all__ = ["Executor"]
