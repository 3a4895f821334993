"""GPUs that need not be present: what compiling for them, and judging what was compiled, has to know."""

import logging
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Literal

from pydantic import Field

from kernelevolve.errors import UnknownNameError, UsageError
from kernelevolve.hardware import architectures
from kernelevolve.schema import Hardware, Record

_log = logging.getLogger(__name__)

_KIB, _MIB, _GB = 1 << 10, 1 << 20, 10**9


def _peaks(*, fp64: float, fp32: float, tf32: float | None, half: float, fp8: float | None) -> dict[str, float]:
    """Dense TFLOP/s by element type; a type that the device has no fast instruction for is left out."""
    found = {
        "float64": fp64, "float32": fp32, "tf32": tf32, "float16": half, "bfloat16": half, "float8_e4m3fn": fp8,
        "float8_e5m2": fp8,
    }  # fmt: skip
    return {dtype: peak for dtype, peak in found.items() if peak is not None}


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
    memory_gbps: float = Field(description="10^9 bytes a second, by the datasheet")
    cache_bytes: int = Field(description="last cache before the memory: L2, or AMD's Infinity Cache")
    clock_mhz: float = Field(description="highest boost clock")
    peak_tflops: dict[str, float] = Field(
        description="element type (or tf32) to dense 10^12 operations a second, by the datasheet; float64 and "
        "float32 by the ordinary units, all others by the matrix units"
    )

    @property
    def capability(self) -> tuple[int, int]:
        """Major and minor number that torch reports: (9, 0) for sm_90, (9, 4) for gfx942."""
        return architectures.version(self.architecture)[:2]

    @property
    def hardware(self) -> Hardware:
        """The record that jobs carry; without ceilings, since none were measured."""
        return Hardware(
            key=self.key, aliases=self.aliases, device="gpu", vendor=self.vendor, product=self.product,
            architecture=self.architecture, cores=self.multiprocessors, memory_bytes=self.memory_bytes,
        )  # fmt: skip


def _nvidia(
    key: str, *aliases: str, product: str, architecture: str, multiprocessors: int, shared: int, memory_gb: int,
    gbps: float, cache: int, clock: float, peaks: Mapping[str, float],
) -> Gpu:  # fmt: skip
    """`shared`: bytes a multiprocessor; a block gets a KiB less, since one is reserved for it."""
    return Gpu(
        key=key, aliases=aliases, vendor="nvidia", product=product, architecture=architecture,
        multiprocessors=multiprocessors, warp_size=32, warps_per_multiprocessor=64, blocks_per_multiprocessor=32,
        registers_per_multiprocessor=65536, registers_per_thread=255, shared_per_block=shared - _KIB,
        shared_per_multiprocessor=shared, shared_reserved=_KIB, memory_bytes=memory_gb * _GB,
        memory_gbps=gbps, cache_bytes=cache, clock_mhz=clock, peak_tflops=dict(peaks),
    )  # fmt: skip


def _amd(
    key: str, *, product: str, architecture: str, multiprocessors: int, shared: int, memory_gb: int, gbps: float,
    clock: float, peaks: Mapping[str, float],
) -> Gpu:  # fmt: skip
    """CDNA 3 and 4: four vector units a compute unit, each with 512 registers a lane and room for eight waves."""
    return Gpu(
        key=key, vendor="amd", product=product, architecture=architecture, multiprocessors=multiprocessors,
        warp_size=64, warps_per_multiprocessor=32, blocks_per_multiprocessor=32,
        registers_per_multiprocessor=4 * 512 * 64, registers_per_thread=512, shared_per_block=shared,
        shared_per_multiprocessor=shared, shared_reserved=0, memory_bytes=memory_gb * _GB,
        memory_gbps=gbps, cache_bytes=256 * _MIB, clock_mhz=clock, peak_tflops=dict(peaks),
    )  # fmt: skip


# Datasheets: "NVIDIA H200 Tensor Core GPU", "NVIDIA H100 Tensor Core GPU" (SXM column; rates with sparsity halved).
_HOPPER = _peaks(fp64=34, fp32=67, tf32=494.7, half=989.4, fp8=1978.9)
# "NVIDIA A100 Tensor Core GPU", 80 GB SXM; no fp8.
_AMPERE = _peaks(fp64=9.7, fp32=19.5, tf32=156, half=312, fp8=None)
# "NVIDIA Blackwell", HGX B200 over its eight GPUs (rates with sparsity halved); cache and clock as the driver reports.
_BLACKWELL = _peaks(fp64=37, fp32=75, tf32=1125, half=2250, fp8=4500)
# "AMD Instinct MI300X", "AMD Instinct MI355X", dense rates; the latter's matrix units have no tf32.
_CDNA3 = _peaks(fp64=81.7, fp32=163.4, tf32=653.7, half=1307.4, fp8=2614.9)
_CDNA4 = _peaks(fp64=78.6, fp32=157.3, tf32=None, half=2516.6, fp8=5033.2)

DEVICES: tuple[Gpu, ...] = (
    _nvidia(
        "nvidia-h200", "nvidia-h200-sxm5", "nvidia-h200-sxm5-141gb", product="NVIDIA H200", architecture="sm_90",
        multiprocessors=132, shared=228 * _KIB, memory_gb=141, gbps=4800,
        cache=50 * _MIB, clock=1980, peaks=_HOPPER,
    ),
    _nvidia(
        "nvidia-h100-80gb-hbm3", "nvidia-h100", "nvidia-h100-sxm5", "nvidia-h100-sxm5-80gb",
        product="NVIDIA H100 80GB HBM3", architecture="sm_90", multiprocessors=132, shared=228 * _KIB, memory_gb=80,
        gbps=3350, cache=50 * _MIB, clock=1980, peaks=_HOPPER,
    ),
    _nvidia(
        "nvidia-a100-sxm4-80gb", "nvidia-a100", "nvidia-a100-sxm-80gb", product="NVIDIA A100-SXM4-80GB",
        architecture="sm_80", multiprocessors=108, shared=164 * _KIB, memory_gb=80, gbps=2039, cache=40 * _MIB,
        clock=1410, peaks=_AMPERE,
    ),
    _nvidia(
        "nvidia-b200", "nvidia-b200-sxm6", product="NVIDIA B200", architecture="sm_100", multiprocessors=148,
        shared=228 * _KIB, memory_gb=180, gbps=8000, cache=126 * _MIB, clock=1965, peaks=_BLACKWELL,
    ),
    _amd(
        "amd-mi300x", product="AMD Instinct MI300X", architecture="gfx942", multiprocessors=304, shared=64 * _KIB,
        memory_gb=192, gbps=5300, clock=2100, peaks=_CDNA3,
    ),
    _amd(
        "amd-mi355x", product="AMD Instinct MI355X", architecture="gfx950", multiprocessors=256, shared=160 * _KIB,
        memory_gb=288, gbps=8000, clock=2400, peaks=_CDNA4,
    ),
)  # fmt: skip


def known(name: str) -> Gpu:
    """The device of that key or alias, or a stand-in for a bare architecture (sm_90, gfx942), said aloud.

    Raises `UnknownNameError`, with names that are close.
    """
    for gpu in DEVICES:
        if name in (gpu.key, *gpu.aliases):
            return gpu
    if vendor := architectures.vendor_of(name):
        return of(_stand_in(vendor, architectures.plain(name)))
    inner = name.partition("-")[2].replace("-", "_")
    if (vendor := architectures.vendor_of(inner)) and name == _stand_in(vendor, inner).key:
        return _derived(_stand_in(vendor, inner))  # it was said when the key was made
    names = [name for gpu in DEVICES for name in (gpu.key, *gpu.aliases)]
    close = get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    choices = ", ".join(close or [gpu.aliases[0] if len(gpu.aliases) == 1 else gpu.key for gpu in DEVICES])
    raise UnknownNameError(
        f"no device is known as {name!r}", remedy=f"choose one of: {choices}; or an architecture, such as sm_90"
    )


def of(hardware: Hardware) -> Gpu:
    """What is known of a GPU. For a product without a row here, the limits of its (or the nearest) architecture.

    Such a device keeps its own key, architecture, size and memory; rates are those of the closest device that has a
    row, scaled by multiprocessors. That is said aloud (a warning). Raises `UsageError` for what is no GPU.
    """
    if hardware.vendor not in ("nvidia", "amd") or architectures.vendor_of(hardware.architecture) != hardware.vendor:
        raise UsageError(
            f"{hardware.key} is no GPU that is known here", remedy="choose a GPU: kernelevolve hardware list"
        )
    for gpu in DEVICES:
        if hardware.key in (gpu.key, *gpu.aliases):
            return gpu
    limits = architectures.nearest(hardware.architecture).name
    _say(
        f"{hardware.product} has no row in the table of devices: limits are those of {limits}"
        + (f", the nearest to {hardware.architecture}" if limits != hardware.architecture else "")
        + f", rates those of {_closest(hardware.vendor, hardware.architecture).product} by multiprocessors"
    )
    return _derived(hardware)


def _stand_in(vendor: str, architecture: str) -> Hardware:
    """A device of an architecture, of the size of the closest one with a row, under a key that no product has."""
    closest = _closest(vendor, architecture)
    return Hardware(
        key=f"{vendor}-{architecture.replace('_', '-')}", aliases=(architecture,), device="gpu", vendor=vendor,
        product=f"a device of {architecture}", architecture=architecture, cores=closest.multiprocessors,
        memory_bytes=closest.memory_bytes,
    )  # fmt: skip


def _derived(hardware: Hardware) -> Gpu:
    closest, limits = _closest(hardware.vendor, hardware.architecture), architectures.nearest(hardware.architecture)
    cores = hardware.cores or closest.multiprocessors
    return closest.model_copy(
        update={
            **limits.model_dump(exclude={"name", "vendor"}),
            "key": hardware.key, "aliases": hardware.aliases, "product": hardware.product,
            "architecture": hardware.architecture, "multiprocessors": cores, "memory_bytes": hardware.memory_bytes,
            "peak_tflops": {d: p * cores / closest.multiprocessors for d, p in closest.peak_tflops.items()},
        }
    )  # fmt: skip


def _closest(vendor: str, architecture: str) -> Gpu:
    """The device with a row whose architecture is least far away, the first of several."""
    return min(
        (gpu for gpu in DEVICES if gpu.vendor == vendor),
        key=lambda gpu: architectures.distance(architecture, gpu.architecture),
    )


@cache
def _say(message: str) -> None:
    """Warn, once a process."""
    _log.warning(message)
