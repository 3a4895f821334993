"""Reads NVIDIA's machine code: what its files say of each kernel, and what nvdisasm makes of the instructions."""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from kernelevolve.errors import ToolchainError

_INSTRUCTION = re.compile(r"^\s*/\*(?P<at>[0-9a-f]{4,})\*/")
_BRANCH = re.compile(r"(?P<branch>\bBRA\b[^;\n]*?)\b0x(?P<to>[0-9a-f]+)")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_CODE, _INFO = b".text.", b".nv.info."
_PARAMETER, _MOST_THREADS = 0x17, 0x05
"""Attributes of a kernel: EIATTR_KPARAM_INFO, EIATTR_MAX_THREADS."""
_WITH_BYTES = 0x04
"""Format of an attribute whose value follows its length (EIFMT_SVAL)."""


@dataclass(frozen=True)
class Kernel:
    """One kernel of a cubin."""

    code: bytes
    parameters: tuple[int, ...] = ()
    """sizes in bytes, in order"""
    most_threads: int | None = None
    """of a block, where __launch_bounds__ says so"""


def tool(name: str) -> Path:
    """nvdisasm or cuobjdump, as triton's wheel carries them (found without importing it). Raises `ToolchainError`."""
    spec = find_spec("triton")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "backends" / "nvidia" / "bin" / name
        if path.is_file():
            return path
    raise ToolchainError(f"{name} is missing", remedy="pip install triton, which brings it")


def kernels(cubin: bytes) -> dict[str, Kernel]:
    """By symbol. Raises `ValueError` where the file is damaged."""
    try:
        found = {name: Kernel(code) for name, code in _named(cubin, _CODE)}
        for name, info in _named(cubin, _INFO):
            if name in found:
                sizes = dict(_parameters(info))
                bounds = [struct.unpack("<III", value) for key, value in _attributes(info) if key == _MOST_THREADS]
                found[name] = Kernel(
                    found[name].code, tuple(size for _, size in sorted(sizes.items())),
                    bounds[0][0] * bounds[0][1] * bounds[0][2] if bounds else None,
                )  # fmt: skip
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"no cubin: {error}") from error
    return found


def code_sections(cubin: bytes) -> Iterator[bytes]:
    """The machine code in an ELF file (64 bits, little-endian), section by section."""
    return (code for _, code in _named(cubin, _CODE))


def listing(printed: str, sizes: Sequence[int]) -> list[str]:
    """What `nvdisasm --binary` printed of pieces of code that lay one after the other, cut into those pieces.

    Where a branch leads stands a label, as in the disassembly of a whole file.
    """
    texts: list[list[str]] = [[] for _ in sizes]
    ends: list[int] = []
    for size in sizes:
        ends.append((ends[-1] if ends else 0) + size)
    place = 0
    for at, line in _labelled(printed.splitlines()):
        while at >= ends[place]:
            place += 1
        texts[place].append(line)
    return ["\n".join(text) for text in texts]


def _labelled(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Instructions with their addresses, and labels before those that a branch leads to."""
    targets = {int(m["to"], 16) for line in lines if (m := _BRANCH.search(line))}
    for line in lines:
        if (found := _INSTRUCTION.match(line)) is None:
            continue
        at = int(found["at"], 16)
        if at in targets:
            yield at, f".L_{at:x}:"
        yield at, _BRANCH.sub(lambda m: f"{m['branch']}`(.L_{int(m['to'], 16):x})", line)


def _named(cubin: bytes, prefix: bytes) -> Iterator[tuple[str, bytes]]:
    """Sections of one kind: what follows the prefix in their names, and their content."""
    (start,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [_SECTION.unpack_from(cubin, start + number * size) for number in range(count)]
    strings = sections[names][4]
    for name, _, _, _, offset, length, *_ in sections:
        if cubin.startswith(prefix, strings + name):
            begin = strings + name + len(prefix)
            yield cubin[begin : cubin.index(b"\0", begin)].decode(), cubin[offset : offset + length]


def _attributes(info: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(info):
        form, key, value = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == _WITH_BYTES:
            yield key, info[at : at + value]
            at += value


def _parameters(info: bytes) -> Iterator[tuple[int, int]]:
    """Number and size of each."""
    for key, value in _attributes(info):
        if key == _PARAMETER:
            _, ordinal, _, packed = struct.unpack("<IHHI", value)
            yield ordinal, packed >> 18
