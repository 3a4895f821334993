"""Serving: certified kernels where they have proved themselves, the reference everywhere else."""

from kernelevolve.runtime.op import Op, Stats
from kernelevolve.runtime.runtime import Runtime

__all__ = ["Op", "Runtime", "Stats"]
