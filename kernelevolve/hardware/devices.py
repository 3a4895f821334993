"""GPUs that need not be present: what compiling for them, and judging what was compiled, has to know."""

from difflib import get_close_matches
from typing import Literal

from pydantic import Field

from kernelevolve.errors import UnknownNameError
from kernelevolve.schema import Hardware, Record

_KIB, _GB = 1 << 10, 10**9


class Gpu(Record):
    """One GPU model. Sizes in bytes; limits are the hardware's own, not the driver's defaults."""

    key: str
    aliases: tuple[str, ...] = ()
    vendor: Literal["nvidia", "amd"]
    product: str
    architecture: str = Field(description="sm_90, gfx942")
    multiprocessors: int = Field(description="or compute units")
    warp_size: int
    warps_per_multiprocessor: int
    blocks_per_multiprocessor: int
    threads_per_block: int = 1024
    registers_per_multiprocessor: int = Field(description="of 32 bits")
    registers_per_thread: int
    shared_per_block: int
    shared_per_multiprocessor: int
    shared_reserved: int = Field(description="taken from the multiprocessor's for each block")
    memory_bytes: int

    @property
    def capability(self) -> tuple[int, int]:
        """Major and minor number that torch reports: (9, 0) for sm_90, (9, 4) for gfx942."""
        digits = self.architecture.removeprefix("sm_").removeprefix("gfx")
        return (int(digits[:-1]), int(digits[-1])) if self.vendor == "nvidia" else (int(digits[0]), int(digits[1]))

    @property
    def hardware(self) -> Hardware:
        """The record that jobs carry; without ceilings, since none were measured."""
        return Hardware(
            key=self.key, aliases=self.aliases, device="gpu", vendor=self.vendor, product=self.product,
            architecture=self.architecture, cores=self.multiprocessors, memory_bytes=self.memory_bytes,
        )  # fmt: skip


def _nvidia(
    key: str, *aliases: str, product: str, architecture: str, multiprocessors: int, shared: int, memory_gb: int
) -> Gpu:  # fmt: skip
    """`shared`: bytes a multiprocessor; a block gets a KiB less, since one is reserved for it."""
    return Gpu(
        key=key, aliases=aliases, vendor="nvidia", product=product, architecture=architecture,
        multiprocessors=multiprocessors, warp_size=32, warps_per_multiprocessor=64, blocks_per_multiprocessor=32,
        registers_per_multiprocessor=65536, registers_per_thread=255, shared_per_block=shared - _KIB,
        shared_per_multiprocessor=shared, shared_reserved=_KIB, memory_bytes=memory_gb * _GB,
    )  # fmt: skip


def _amd(
    key: str, *, product: str, architecture: str, multiprocessors: int, shared: int, memory_gb: int
) -> Gpu:  # fmt: skip
    """CDNA 3 and 4: four vector units a compute unit, each with 512 registers a lane and room for eight waves."""
    return Gpu(
        key=key, vendor="amd", product=product, architecture=architecture, multiprocessors=multiprocessors,
        warp_size=64, warps_per_multiprocessor=32, blocks_per_multiprocessor=32,
        registers_per_multiprocessor=4 * 512 * 64, registers_per_thread=512, shared_per_block=shared,
        shared_per_multiprocessor=shared, shared_reserved=0, memory_bytes=memory_gb * _GB,
    )  # fmt: skip


DEVICES: tuple[Gpu, ...] = (
    _nvidia(
        "nvidia-h200", "nvidia-h200-sxm5", "nvidia-h200-sxm5-141gb", product="NVIDIA H200", architecture="sm_90",
        multiprocessors=132, shared=228 * _KIB, memory_gb=141,
    ),
    _nvidia(
        "nvidia-h100-80gb-hbm3", "nvidia-h100", "nvidia-h100-sxm5", "nvidia-h100-sxm5-80gb",
        product="NVIDIA H100 80GB HBM3", architecture="sm_90", multiprocessors=132, shared=228 * _KIB, memory_gb=80,
    ),
    _nvidia(
        "nvidia-a100-sxm4-80gb", "nvidia-a100", "nvidia-a100-sxm-80gb", product="NVIDIA A100-SXM4-80GB",
        architecture="sm_80", multiprocessors=108, shared=164 * _KIB, memory_gb=80,
    ),
    _nvidia(
        "nvidia-b200", "nvidia-b200-sxm6", product="NVIDIA B200", architecture="sm_100", multiprocessors=148,
        shared=228 * _KIB, memory_gb=180,
    ),
    _amd(
        "amd-mi300x", product="AMD Instinct MI300X", architecture="gfx942", multiprocessors=304, shared=64 * _KIB,
        memory_gb=192,
    ),
    _amd(
        "amd-mi355x", product="AMD Instinct MI355X", architecture="gfx950", multiprocessors=256, shared=160 * _KIB,
        memory_gb=288,
    ),
)  # fmt: skip


def known(name: str) -> Gpu:
    """The device of that key or alias. Raises `UnknownNameError`, with names that are close."""
    for gpu in DEVICES:
        if name in (gpu.key, *gpu.aliases):
            return gpu
    names = [name for gpu in DEVICES for name in (gpu.key, *gpu.aliases)]
    close = get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    choices = ", ".join(close or [gpu.aliases[0] if len(gpu.aliases) == 1 else gpu.key for gpu in DEVICES])
    raise UnknownNameError(f"no device is known as {name!r}", remedy=f"choose one of: {choices}")
