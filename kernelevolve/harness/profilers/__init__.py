"""Profilers of GPUs: how each is started around a runner, and how its report becomes `schema.Counters`."""

from kernelevolve.harness.profilers.base import Profiler, Refused
from kernelevolve.harness.profilers.ncu import Ncu
from kernelevolve.harness.profilers.proton import Proton
from kernelevolve.harness.profilers.rocprof import Rocprof

__all__ = ["Ncu", "Profiler", "Proton", "Refused", "Rocprof"]
