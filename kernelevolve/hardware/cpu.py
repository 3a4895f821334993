"""Detection of CPUs."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from kernelevolve.hardware import cgroup
from kernelevolve.schema import Hardware

_X86_LEVELS = (
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}),
    ("x86-64-v2", {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
)
"""Levels of the x86-64 psABI above the first, highest first, by the names that Linux gives the flags."""

_FEATURES = frozenset({
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl",
    "avx512vbmi", "avx512_vbmi2", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
    "amx_int8", "amx_fp16", "asimd", "asimdhp", "asimddp", "sve", "sve2", "bf16", "i8mm", "sme",
})  # fmt: skip

_NOISE = re.compile(
    r"""\((R|TM)\) | @.*$ | \b\d+(st|nd|rd|th)\ Gen\b | \b\d+-Core\b | \b(Processor|CPU)\b
    | \b(w/|with\ |version\ ).*$""",
    re.VERBOSE | re.IGNORECASE,
)
"""What a model name says beside the model: trademark, clock, generation, core count, graphics."""

_VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel", "HygonGenuine": "hygon"}
_ARM_VENDORS = {
    "0x41": "arm", "0x42": "broadcom", "0x43": "cavium", "0x48": "hisilicon",
    "0x61": "apple", "0xc0": "ampere",
}  # fmt: skip
_ARM_PARTS = {
    "0xd0c": "Neoverse N1", "0xd40": "Neoverse V1", "0xd49": "Neoverse N2", "0xd4f": "Neoverse V2",
    "0xd8e": "Neoverse N3", "0xd84": "Neoverse V3", "0xac3": "AmpereOne",
}  # fmt: skip


def detect() -> Hardware:
    """The CPU of this machine, as far as this process may use it."""
    granted = cgroup.cpu_quota()
    cores = len(os.sched_getaffinity(0))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return describe(
        Path("/proc/cpuinfo").read_text(),
        machine=platform.machine(),
        cores=cores if granted is None else max(1, min(cores, int(granted))),
        memory_bytes=min(total, cgroup.memory_limit() or total),
        toolchain=_toolchain(),
    )


def describe(cpuinfo: str, machine: str, cores: int, memory_bytes: int, toolchain: dict[str, str]) -> Hardware:
    """The record of a CPU out of the text of `/proc/cpuinfo`; `machine` is what `uname -m` says."""
    fields = _first_processor(cpuinfo)
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    vendor, product = _identity(fields, machine)
    return Hardware(
        key=f"{_slug(vendor, product)}-{cores}c",
        device="cpu",
        vendor=vendor,
        product=product,
        architecture=_architecture(machine, flags),
        cores=cores,
        memory_bytes=memory_bytes,
        features=tuple(sorted("neon" if flag == "asimd" else flag for flag in flags & _FEATURES)),
        toolchain=toolchain,
    )


def _first_processor(cpuinfo: str) -> dict[str, str]:
    block = cpuinfo.strip().split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _identity(fields: dict[str, str], machine: str) -> tuple[str, str]:
    """Vendor and product. A generic model name ("AMD EPYC" in a guest) gets family and model appended."""
    if part := fields.get("CPU part"):
        vendor = _ARM_VENDORS.get(fields.get("CPU implementer", ""), "arm")
        return vendor, _ARM_PARTS.get(part, f"part {part}")
    vendor_id = fields.get("vendor_id", machine)
    product = _tidy(fields.get("model name", machine))
    if not re.search(r"\d", product) and "cpu family" in fields:
        product = f"{product} f{fields['cpu family']}m{fields['model']}"
    return _VENDORS.get(vendor_id, vendor_id.lower()), product


def _tidy(model_name: str) -> str:
    """The model name without clock, trademark signs, core count, generation and the word "Processor"."""
    return " ".join(_NOISE.sub(" ", model_name).split())


def _slug(vendor: str, product: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", product.lower()).strip("-")
    return words if words.startswith(vendor) else f"{vendor}-{words}"


def _architecture(machine: str, flags: set[str]) -> str:
    if machine not in ("x86_64", "AMD64"):
        return machine
    # Each level includes those below it.
    for index, (name, _) in enumerate(_X86_LEVELS):
        if all(needed <= flags for _, needed in _X86_LEVELS[index:]):
            return name
    return "x86-64"


def _toolchain() -> dict[str, str]:
    tools = {"python": platform.python_version()}
    if compiler := shutil.which("g++"):
        answer = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, timeout=10, check=False)
        if answer.returncode == 0:
            tools["g++"] = answer.stdout.strip()
    return tools
