"""Which of a machine's GPUs is meant: one that this process may see, by the names that tools and runtimes give it."""

from collections.abc import Sequence
from dataclasses import dataclass

from kernelevolve.schema import Hardware


@dataclass(frozen=True)
class Present:
    """A GPU, or a part of one, that is in this machine."""

    hardware: Hardware
    tool: str
    """as `nvidia-smi --id` or `amd-smi --gpu` take it; for a part of a GPU, the whole"""
    runtime: str
    """as CUDA_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES take it"""


def products(found: Sequence[Present]) -> tuple[Hardware, ...]:
    """Each product once, in the order in which they were found."""
    return tuple({present.hardware.key: present.hardware for present in reversed(found)}.values())[::-1]


def visible(found: Sequence[Present], chosen: str | None) -> tuple[Present, ...]:
    """Those that CUDA_VISIBLE_DEVICES (or HIP's) leaves, in its order, which is torch's; None for one that isn't set.

    It names whole GPUs by index, or GPUs and parts by (the beginning of) their UUID, and ends at what names nothing.
    """
    if chosen is None:
        return tuple(found)
    wholes = list(dict.fromkeys(present.tool for present in found))
    left: list[Present] = []
    for word in (part.strip() for part in chosen.split(",")):
        name = wholes[int(word)] if word.isdigit() and int(word) < len(wholes) else word
        match = next((p for p in found if name and (p.runtime.startswith(name) or p.tool == name)), None)
        if match is None:
            break
        left.append(match)
    return tuple(left)
