"""What this machine is: its CPU, its GPUs, and the name that kernels are filed under."""

from kernelevolve.errors import UnknownNameError
from kernelevolve.hardware import cpu, nvidia
from kernelevolve.schema import Hardware

__all__ = ["detect", "detect_all", "find"]


def detect() -> Hardware:
    """The device that kernels are searched for unless another is named: the CPU, without ceilings."""
    return cpu.detect()


def detect_all() -> tuple[Hardware, ...]:
    """Every device of this machine, the CPU first."""
    return (cpu.detect(), *nvidia.detect())


def find(name: str | None) -> Hardware:
    """The device of that key or alias, or the default one for None. Raises `UnknownNameError`."""
    if name is None:
        return detect()
    present = detect_all()
    for hardware in present:
        if name in (hardware.key, *hardware.aliases):
            return hardware
    raise UnknownNameError(
        f"there is no hardware {name!r} on this machine",
        remedy=f"choose one of: {', '.join(h.key for h in present)}",
    )
