"""What this machine is: its CPU, its GPUs, and the name that kernels are filed under."""

from pathlib import Path

from kernelevolve.errors import UnknownNameError, UsageError
from kernelevolve.hardware import amd, architectures, ceilings, cpu, devices, nvidia
from kernelevolve.hardware.present import Present, visible
from kernelevolve.resources import visible_gpus
from kernelevolve.schema import Hardware

__all__ = ["described", "detect", "detect_all", "find", "measured", "visible_devices"]


def detect() -> Hardware:
    """The device that kernels are searched for unless another is named: the CPU, without ceilings."""
    return cpu.detect()


def detect_all() -> tuple[Hardware, ...]:
    """Every device of this machine, the CPU first."""
    return (cpu.detect(), *nvidia.detect(), *amd.detect())


def find(name: str | None) -> Hardware:
    """The device of that key, alias or architecture (sm_90), or the default one for None. Raises `UnknownNameError`."""
    if name is None:
        return detect()
    present = detect_all()
    for hardware in present:
        if name in (hardware.key, *hardware.aliases):
            return hardware
    for hardware in present:
        if hardware.device == "gpu" and architectures.plain(name) == hardware.architecture:
            return hardware
    raise UnknownNameError(
        f"there is no hardware {name!r} on this machine",
        remedy=f"choose one of: {', '.join(h.key for h in present)}; to search for a GPU that isn't here, add --triage",
    )


def described(name: str | None) -> Hardware:
    """A GPU by key or alias, whether it is here or not; nothing about it is measured. Raises `UsageError`."""
    if name is None:
        raise UsageError("--triage needs the name of a device", remedy="add, for instance, --hardware nvidia-h200")
    here = [h for h in detect_all() if h.device == "gpu" and name in (h.key, *h.aliases)]
    return here[0] if here else devices.known(name).hardware


def visible_devices(vendor: str) -> tuple[Present, ...]:
    """The GPUs of a vendor that this process may use, as torch numbers them."""
    look = {"nvidia": nvidia.look, "amd": amd.look}.get(vendor)
    return visible(look(), visible_gpus(vendor)) if look is not None else ()


def measured(name: str | None, threads: int | None, cache_dir: Path) -> Hardware:
    """That device (or the default one) with its ceilings, measured on first use; `threads` is for a CPU alone."""
    machine = find(name)
    return ceilings.cached(machine, threads or machine.cores, cache_dir)
