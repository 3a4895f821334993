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


_AMD = {23: ((0x30, "Zen 2"), (0, "Zen")), 26: ((0, "Zen 5"),),
        25: ((0x60, "Zen 4"), (0x20, "Zen 3"), (0x10, "Zen 4"), (0, "Zen 3"))}  # fmt: skip
_INTEL = {
    0x55: "Skylake or Cascade Lake", 0x6A: "Ice Lake", 0x6C: "Ice Lake", 0x8F: "Sapphire Rapids",
    0xCF: "Emerald Rapids", 0xAD: "Granite Rapids", 0xAE: "Granite Rapids",
}  # fmt: skip
"""Family to least model and name; model of family 6 to name: as the vendors' guides and the Linux kernel list them."""

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


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
        cache_bytes=cache_bytes(_CACHES),
    )


def describe(
    cpuinfo: str,
    machine: str,
    cores: int,
    memory_bytes: int,
    toolchain: dict[str, str],
    *,
    cache_bytes: dict[str, int] | None = None,
) -> Hardware:
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
        microarchitecture=_microarchitecture(fields),
        cache_bytes=cache_bytes or {},
        cores=cores,
        memory_bytes=memory_bytes,
        features=tuple(sorted("neon" if flag == "asimd" else flag for flag in flags & _FEATURES)),
        toolchain=toolchain,
    )


def cache_bytes(folder: Path) -> dict[str, int]:
    """Sizes of the first core's data caches, by name; empty where the kernel doesn't tell."""
    found: dict[str, int] = {}
    for cache in sorted(folder.glob("index*")):
        kind, level, size = ((cache / name).read_text().strip() for name in ("type", "level", "size"))
        if kind != "Instruction" and size.endswith("K"):
            found[f"L{level}d" if kind == "Data" else f"L{level}"] = int(size[:-1]) << 10
    return found


def _microarchitecture(fields: dict[str, str]) -> str | None:
    vendor, family, model = (fields.get(name, "") for name in ("vendor_id", "cpu family", "model"))
    if vendor == "AuthenticAMD" and family.isdigit() and model.isdigit():
        return next((name for least, name in _AMD.get(int(family), ()) if int(model) >= least), None)
    return _INTEL.get(int(model)) if vendor == "GenuineIntel" and family == "6" and model.isdigit() else None


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
