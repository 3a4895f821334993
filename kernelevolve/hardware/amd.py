"""Detection of AMD GPUs, through amd-smi or the older rocm-smi: no HIP context is made, no library is loaded."""

import json
import logging
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from kernelevolve.hardware.devices import DEVICES
from kernelevolve.hardware.present import Present, products
from kernelevolve.schema import Hardware

_log = logging.getLogger(__name__)

SECONDS = 30.0
"""amd-smi is a Python program that opens every device."""

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"

_AMD_SMI = ("static", "--asic", "--vram", "--driver", "--json")
_ROCM_SMI = ("--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json")


def detect() -> tuple[Hardware, ...]:
    """The AMD GPUs of this machine, each product once; none without amd-smi and rocm-smi, or where neither answers."""
    return products(look())


def look() -> tuple[Present, ...]:
    """Every AMD GPU of this machine, in the driver's order."""
    for program, arguments in (("amd-smi", _AMD_SMI), ("rocm-smi", _ROCM_SMI)):
        text = ask(program, *arguments)
        if text is not None and (found := describe(text)):
            return found
    return ()


def ask(program: str, *arguments: str) -> str | None:
    """What a tool prints; None where it is missing or fails, which is logged."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        answer = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    except (subprocess.TimeoutExpired, OSError) as error:
        _log.warning("%s gave no answer: %s", program, error)
        return None
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).strip()[-300:]
        _log.warning("%s failed: %s", program, said or f"exit code {answer.returncode}")
        return None
    return answer.stdout


def describe(text: str) -> tuple[Present, ...]:
    """The JSON of either tool, as devices."""
    document = read(text)
    found = (*_of_amd_smi(document), *_of_rocm_smi(document))
    return tuple(Present(hardware, str(number), str(number)) for number, hardware in enumerate(found))


def parse(text: str) -> tuple[Hardware, ...]:
    """Records out of the JSON of either tool; equal devices become one record."""
    return products(describe(text))


def read(text: str) -> Json:
    """The JSON in what a tool printed: warnings may stand before and after it. None where there is none."""
    for start in re.finditer(r"^\s*[\[{]", text, re.MULTILINE):
        try:
            document: Json = json.JSONDecoder().raw_decode(text[start.end() - 1 :])[0]
        except ValueError:
            continue
        return document
    if text.strip():
        _log.warning("the answer holds no JSON: %s", text.strip()[:200])
    return None


def gpus(document: Json) -> Iterator[Mapping[str, Json]]:
    """The devices of an answer of amd-smi: a list, since ROCm 6.4 within `gpu_data`."""
    if isinstance(document, Mapping):
        document = document.get("gpu_data")
    if isinstance(document, Sequence) and not isinstance(document, str):
        yield from (device for device in document if isinstance(device, Mapping))


def at(document: Json, *path: str) -> Json:
    """A value inside nested objects; None where it is missing or "N/A". A value with a unit is its value."""
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    if isinstance(document, Mapping) and "value" in document:
        document = document["value"]
    return None if document == "N/A" else document


def number(value: Json) -> float | None:
    """A number, or text that begins with one ("132 MHz", "(132Mhz)"); None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    found = re.search(r"-?\d+(\.\d+)?", value) if isinstance(value, str) else None
    return float(found[0]) if found else None


def _of_amd_smi(document: Json) -> Iterator[Hardware]:
    for device in gpus(document):
        version = at(device, "driver", "version") or at(device, "driver", "driver_version")
        yield from _describe(
            name=at(device, "asic", "market_name"),
            architecture=at(device, "asic", "target_graphics_version"),
            cores=number(at(device, "asic", "num_compute_units")),
            memory_bytes=(number(at(device, "vram", "size")) or 0) * (1 << 20),  # called MB, and counted in MiB
            driver=version,
        )


def _of_rocm_smi(document: Json) -> Iterator[Hardware]:
    """One object a card, `card0` and so on, with keys whose case differs between versions; and `system`."""
    if not isinstance(document, Mapping):
        return
    cards = {
        name: {k.lower(): v for k, v in values.items()}
        for name, values in document.items()
        if isinstance(values, Mapping)
    }
    for name, card in cards.items():
        if name.startswith("card"):
            yield from _describe(
                name=card.get("card series"),
                architecture=card.get("gfx version"),
                cores=None,
                memory_bytes=number(card.get("vram total memory (b)")) or 0,
                driver=cards.get("system", {}).get("driver version"),
            )


def _describe(
    name: Json, architecture: Json, cores: float | None, memory_bytes: float, driver: Json
) -> Iterator[Hardware]:
    if not isinstance(name, str) or not isinstance(architecture, str) or not architecture.startswith("gfx"):
        _log.warning("an AMD device tells neither its name nor its architecture: it is left out (update ROCm)")
        return
    slug = _slug(name)
    known = next((gpu for gpu in DEVICES if gpu.key == slug), None)
    whole = known.multiprocessors if known is not None else None
    part = cores is not None and whole is not None and cores < whole
    if cores is None and whole is None:
        _log.warning("the number of compute units of %s is not known: it is given as 0", name)
    yield Hardware(
        # A partition (CPX, DPX) has a part of the compute units and of the bandwidth: a device of its own.
        key=f"{slug}-{cores:.0f}cu" if part else slug,
        aliases=() if part else (f"amd-instinct-{slug.removeprefix('amd-')}",) if "instinct" in name.lower() else (),
        device="gpu",
        vendor="amd",
        product=name,
        architecture=architecture,
        cores=int(cores if cores is not None else whole or 0),
        memory_bytes=int(memory_bytes),
        driver=driver if isinstance(driver, str) else None,
    )


def _slug(name: str) -> str:
    """amd-mi300x for "AMD Instinct MI300X", with or without the form factor."""
    words = [w for w in re.findall(r"[a-z0-9]+", name.lower()) if w not in ("amd", "instinct", "oam", "platform")]
    return "-".join(("amd", *words))
