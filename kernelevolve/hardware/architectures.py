"""What a multiprocessor of each GPU architecture holds, whatever the product.

Sources: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; AMD, "Instinct MI200/MI300/
CDNA 4 ISA" and "RDNA 3/4 ISA" guides.
"""

import re
from typing import Literal

from pydantic import Field

from kernelevolve.schema import Record

_KIB = 1 << 10


class Architecture(Record):
    """Limits that every device of an architecture shares. Sizes in bytes."""

    name: str = Field(description="sm_90, gfx942")
    vendor: Literal["nvidia", "amd"]
    warp_size: int
    warps_per_multiprocessor: int
    blocks_per_multiprocessor: int
    registers_per_multiprocessor: int = Field(description="of 32 bits")
    registers_per_thread: int
    shared_per_block: int
    shared_per_multiprocessor: int
    shared_reserved: int = Field(description="taken from the multiprocessor's for each block")

    @property
    def version(self) -> tuple[int, int, int]:
        """Major, minor and stepping: (9, 0, 0) for sm_90, (9, 4, 2) for gfx942."""
        return version(self.name)


def _nvidia(name: str, warps: int, blocks: int, shared_kib: int) -> Architecture:
    """From sm_80 on, a KiB of the multiprocessor's shared memory is reserved for each block."""
    reserved = _KIB if version(name) >= (8, 0, 0) else 0
    return Architecture(
        name=name, vendor="nvidia", warp_size=32, warps_per_multiprocessor=warps, blocks_per_multiprocessor=blocks,
        registers_per_multiprocessor=65536, registers_per_thread=255, shared_per_block=shared_kib * _KIB - reserved,
        shared_per_multiprocessor=shared_kib * _KIB, shared_reserved=reserved,
    )  # fmt: skip


def _cdna(name: str, shared_kib: int) -> Architecture:
    """Four vector units a compute unit, each with 512 registers a lane and room for eight waves of 64."""
    return Architecture(
        name=name, vendor="amd", warp_size=64, warps_per_multiprocessor=32, blocks_per_multiprocessor=32,
        registers_per_multiprocessor=4 * 512 * 64, registers_per_thread=512, shared_per_block=shared_kib * _KIB,
        shared_per_multiprocessor=shared_kib * _KIB, shared_reserved=0,
    )  # fmt: skip


def _rdna(name: str) -> Architecture:
    """Two vector units a compute unit, each with 1536 registers a lane and room for 16 waves of 32."""
    return Architecture(
        name=name, vendor="amd", warp_size=32, warps_per_multiprocessor=32, blocks_per_multiprocessor=32,
        registers_per_multiprocessor=2 * 1536 * 32, registers_per_thread=256, shared_per_block=64 * _KIB,
        shared_per_multiprocessor=64 * _KIB, shared_reserved=0,
    )  # fmt: skip


def version(name: str) -> tuple[int, int, int]:
    """Major, minor and stepping of an architecture's name. Raises `ValueError` for what is none.

    A suffix is no part of it: sm_90a is sm_90, gfx942:sramecc+:xnack- is gfx942.
    """
    if found := re.fullmatch(r"sm_(\d+)(\d)[a-z]?", name):
        return int(found[1]), int(found[2]), 0
    if found := re.fullmatch(r"gfx(\d+)(\d)([\da-f])(:.*)?", name):
        return int(found[1]), int(found[2]), int(found[3], 16)
    raise ValueError(f"{name!r} is no architecture")


ARCHITECTURES: tuple[Architecture, ...] = (
    _nvidia("sm_70", 64, 32, 96),
    _nvidia("sm_75", 32, 16, 64),
    _nvidia("sm_80", 64, 32, 164),
    _nvidia("sm_86", 48, 16, 100),
    _nvidia("sm_87", 48, 16, 164),
    _nvidia("sm_89", 48, 24, 100),
    _nvidia("sm_90", 64, 32, 228),
    _nvidia("sm_100", 64, 32, 228),
    _nvidia("sm_103", 64, 32, 228),
    _nvidia("sm_110", 48, 24, 228),
    _nvidia("sm_120", 48, 24, 100),
    _nvidia("sm_121", 48, 24, 100),
    _cdna("gfx90a", 64),
    _cdna("gfx942", 64),
    _cdna("gfx950", 160),
    _rdna("gfx1100"),
    _rdna("gfx1201"),
)


def vendor_of(name: str) -> Literal["nvidia", "amd"] | None:
    """Who makes devices of that architecture; None where the name is no architecture."""
    try:
        version(name)
    except ValueError:
        return None
    return "nvidia" if name.startswith("sm_") else "amd"


def plain(name: str) -> str:
    """The name without what a build adds to it: sm_90 for sm_90a, gfx942 for gfx942:sramecc+:xnack-."""
    return name.partition(":")[0] if name.startswith("gfx") else re.sub(r"(?<=\d)[a-z]$", "", name)


def distance(one: str, other: str) -> tuple[int, int, int]:
    """How far two architectures of a vendor are apart; the generation counts before all else."""
    a, b = version(one), version(other)
    return abs(a[0] - b[0]), abs(a[1] - b[1]), abs(a[2] - b[2])


def nearest(name: str) -> Architecture:
    """The architecture of that name, or the one of the same vendor that is least far away (the older of two).

    Raises `ValueError` where the name is no architecture.
    """
    version(name)
    vendor = vendor_of(name)
    return min((a for a in ARCHITECTURES if a.vendor == vendor), key=lambda a: (distance(name, a.name), a.version))
