"""Detection of NVIDIA GPUs, through nvidia-smi: no CUDA context is made and no library is loaded."""

import logging
import os
import re
from collections.abc import Iterator, Sequence

from kernelevolve.hardware import nvidia_smi
from kernelevolve.hardware.devices import DEVICES
from kernelevolve.hardware.present import Present, products
from kernelevolve.schema import Hardware

_log = logging.getLogger(__name__)

_QUERY = ("uuid", "name", "memory.total", "driver_version", "compute_cap")

_CAPABILITIES = {
    "v100": "7.0", "t4": "7.5", "a100": "8.0", "a30": "8.0", "a10": "8.6", "a10g": "8.6", "a40": "8.6", "l4": "8.9",
    "l40": "8.9", "l40s": "8.9", "h100": "9.0",
}  # fmt: skip
"""For drivers before 510, which don't tell compute_cap: by a word of the product's name."""

_MIG = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: ([^)]+)\)")
_GPU = re.compile(r"GPU \d+: .*\(UUID: ([^)]+)\)")
_MIG_MULTIPROCESSORS = {"sm_80": {1: 14, 2: 28, 3: 42, 4: 56, 7: 98}, "sm_90": {1: 16, 2: 32, 3: 60, 4: 64, 7: 132}}
"""Multiprocessors of a MIG device by its number of slices (MIG User Guide, "Supported MIG Profiles")."""

_ALIASES: dict[str, tuple[str, ...]] = {
    "nvidia-h100-80gb-hbm3": ("nvidia-h100", "nvidia-h100-sxm5", "nvidia-h100-sxm5-80gb"),
    "nvidia-h100-pcie": ("nvidia-h100-pcie-80gb",),
    "nvidia-h100-nvl": ("nvidia-h100-nvl-94gb",),
    "nvidia-h200": ("nvidia-h200-sxm5", "nvidia-h200-sxm5-141gb"),
    "nvidia-a100-sxm4-80gb": ("nvidia-a100-sxm-80gb",),
    "nvidia-a100-sxm4-40gb": ("nvidia-a100-sxm-40gb",),
    "nvidia-a100-80gb-pcie": ("nvidia-a100-pcie-80gb",),
    "nvidia-b200": ("nvidia-b200-sxm6",),
}
"""Other spellings of the same device. Variants that differ in clocks, memory or cores are devices apart."""

_MULTIPROCESSORS: dict[str, int] = {
    "tesla-v100-sxm2-16gb": 80,
    "tesla-v100-sxm2-32gb": 80,
    "tesla-t4": 40,
    "nvidia-a10": 72,
    "nvidia-a10g": 80,
    "nvidia-a100-sxm4-40gb": 108,
    "nvidia-a100-sxm4-80gb": 108,
    "nvidia-a100-pcie-40gb": 108,
    "nvidia-a100-80gb-pcie": 108,
    "nvidia-l4": 58,
    "nvidia-l40s": 142,
    "nvidia-h100-80gb-hbm3": 132,
    "nvidia-h100-pcie": 114,
    "nvidia-h100-nvl": 132,
    "nvidia-gh200-480gb": 132,
    "nvidia-h200": 132,
    "nvidia-h200-nvl": 132,
    "nvidia-b200": 148,
    "nvidia-geforce-rtx-4090": 128,
    "nvidia-geforce-rtx-5090": 170,
}
"""Multiprocessors by product: nvidia-smi doesn't tell, and asking the driver would make a context."""


def detect() -> tuple[Hardware, ...]:
    """The NVIDIA GPUs of this machine, in the driver's order, each product once; none without nvidia-smi.

    A GPU that is divided (MIG) is its parts: nothing can run on the whole.
    """
    return products(look())


def look() -> tuple[Present, ...]:
    """Every NVIDIA GPU of this machine, or its parts, in the driver's order."""
    rows = nvidia_smi.query(_QUERY)
    return describe(rows, nvidia_smi.listing() if rows else "")


def describe(rows: Sequence[nvidia_smi.Row], listing: str = "") -> tuple[Present, ...]:
    """What nvidia-smi answers and lists, as devices."""
    parts = _parts(listing)
    found: list[Present] = []
    for number, row in enumerate(rows):
        whole = _describe(row)
        if whole is None:
            _log.warning("nvidia-smi doesn't say what a GPU is (lost, or in need of a reset?): it is left out")
            continue
        uuid = row.get("uuid", str(number))
        inner = [Present(_part(whole, profile), uuid, name) for profile, name in parts.get(uuid, ())]
        found += inner or [Present(whole, uuid, uuid)]
    return tuple(found)


def parse(text: str) -> tuple[Hardware, ...]:
    """Read lines of "name, memory (MiB), driver, compute capability"; equal devices become one record."""
    return products(describe(nvidia_smi.read(text, _QUERY[1:])))


def _parts(listing: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Profile and UUID of MIG devices, by the UUID of their GPU."""
    parts: dict[str, tuple[tuple[str, str], ...]] = {}
    uuid = ""
    for line in listing.splitlines():
        if gpu := _GPU.match(line):
            uuid = gpu[1]
        elif part := _MIG.match(line):
            parts[uuid] = (*parts.get(uuid, ()), (part[1], part[2]))
    return parts


def _part(whole: Hardware, profile: str) -> Hardware:
    """A MIG device: a key of its own, since it has a part of the multiprocessors, bandwidth and memory.

    A profile is 3g.40gb: slices and memory, possibly 1c.3g.40gb (a part of the slices) or 1g.10gb+me.
    """
    words = re.fullmatch(r"(?:(\d+)c\.)?(\d+)g\.(\d+)gb.*", profile)
    slices, memory = (int(words[1] or words[2]), int(words[3]) << 30) if words else (0, whole.memory_bytes)
    cores = _MIG_MULTIPROCESSORS.get(whole.architecture, {}).get(slices, 0)
    return whole.model_copy(
        update={
            "key": f"{whole.key}-mig-{_slug(profile)}",
            "aliases": (),
            "product": f"{whole.product} MIG {profile}",
            "cores": cores or _unknown_size(f"{whole.product} MIG {profile}"),
            "memory_bytes": min(memory, whole.memory_bytes),
        }
    )


def _describe(row: nvidia_smi.Row) -> Hardware | None:
    """None where the driver doesn't tell what is needed."""
    name, memory, slug = row.get("name"), row.get("memory.total"), _slug(row.get("name", ""))
    known = next((gpu for gpu in DEVICES if gpu.key == slug), None)
    if name is None:
        return None
    capability = row.get("compute_cap") or next(_capabilities(slug), None)
    if capability is None:
        _log.warning("the driver doesn't tell the compute capability of %s: update it", name)
        return None
    key = slug if slug.startswith("nvidia-") else f"nvidia-{slug}"
    return Hardware(
        key=key,
        aliases=tuple(dict.fromkeys((*_ALIASES.get(slug, ()), *(known.aliases if known else ())))),
        device="gpu",
        vendor="nvidia",
        product=name,
        architecture=f"sm_{capability.replace('.', '')}",
        cores=_MULTIPROCESSORS.get(slug) or (known.multiprocessors if known else _unknown_size(name)),
        memory_bytes=int(memory) << 20 if memory is not None else _shared_memory(),
        driver=row.get("driver_version"),
    )


def _capabilities(slug: str) -> Iterator[str]:
    return (_CAPABILITIES[word] for word in slug.split("-") if word in _CAPABILITIES)


def _shared_memory() -> int:
    """Of a GPU that has none of its own (GB10, Jetson), and for which nvidia-smi therefore tells none."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _unknown_size(name: str) -> int:
    _log.warning("the number of multiprocessors of %s is not known: it is given as 0", name)
    return 0
