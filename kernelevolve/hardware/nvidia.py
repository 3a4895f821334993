"""Detection of NVIDIA GPUs, through nvidia-smi: no CUDA context is made and no library is loaded."""

import csv
import logging
import re
import shutil
import subprocess

from kernelevolve.schema import Hardware

_log = logging.getLogger(__name__)

_QUERY = "name,memory.total,driver_version,compute_cap"

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
    """The NVIDIA GPUs of this machine, in the driver's order, each product once; none without nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        _log.warning("nvidia-smi gave no answer within 10 seconds: GPUs are left out")
        return ()
    if answer.returncode != 0:
        _log.warning("nvidia-smi failed: %s: GPUs are left out", answer.stdout.strip() or answer.stderr.strip())
        return ()
    return parse(answer.stdout)


def parse(text: str) -> tuple[Hardware, ...]:
    """Read lines of "name, memory (MiB), driver, compute capability"; equal devices become one record."""
    found: dict[str, Hardware] = {}
    for row in csv.reader(text.strip().splitlines(), skipinitialspace=True):
        hardware = _describe(*row)
        found.setdefault(hardware.key, hardware)
    return tuple(found.values())


def _describe(name: str, memory_mib: str, driver: str, capability: str) -> Hardware:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    multiprocessors = _MULTIPROCESSORS.get(slug)
    if multiprocessors is None:
        _log.warning("the number of multiprocessors of %s is not known: it is given as 0", name)
    return Hardware(
        key=slug if slug.startswith("nvidia-") else f"nvidia-{slug}",
        aliases=_ALIASES.get(slug, ()),
        device="gpu",
        vendor="nvidia",
        product=name,
        architecture=f"sm_{capability.replace('.', '')}",
        cores=multiprocessors or 0,
        memory_bytes=int(memory_mib) << 20,
        driver=driver,
    )
