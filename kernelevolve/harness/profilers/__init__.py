"""Profilers of GPUs: how each is started around a runner, and how its report becomes `schema.Counters`."""

from kernelevolve.harness.profilers.base import Profiler, Refused
from kernelevolve.harness.profilers.ncu import Ncu
from kernelevolve.harness.profilers.proton import Proton
from kernelevolve.harness.profilers.rocprof import Rocprof
from kernelevolve.schema import Hardware

__all__ = ["Ncu", "Profiler", "Proton", "Refused", "Rocprof", "best"]


def best(hardware: Hardware) -> Profiler | None:
    """The profiler here that tells most about a device: the vendor's, else Proton; none for what is no GPU."""
    if hardware.device != "gpu":
        return None
    vendors: dict[str, tuple[Profiler, ...]] = {"nvidia": (Ncu(), Proton()), "amd": (Rocprof(), Proton())}
    return next((profiler for profiler in vendors.get(hardware.vendor, ()) if profiler.available()), None)
