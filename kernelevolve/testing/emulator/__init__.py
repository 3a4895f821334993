"""CUDA C++ on a CPU, for tests: what a kernel computes, found out without a device.

`translate` turns CUDA's own syntax into C++ that `cuda_emulator.h` gives a meaning to; `build` makes a shared object of
it that takes tensors in main memory. The subset: what the header and `ptx.h` declare. Anything else is an error of g++.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from kernelevolve.errors import UsageError
from kernelevolve.languages.cpp import compiler
from kernelevolve.languages.cxx import ffi_folder

_HEADER = "cuda_emulator.h"
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*[<\"](?:cuda|mma)\w*(?:\.h|/\w+)[>\"].*$", re.MULTILINE)
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?((?:unsigned\s+)?[\w:]+)\s+(\w+)\s*\[\s*\]\s*;")
_ASM = re.compile(r"\basm\s*(?:volatile)?\s*\(")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OPERAND = re.compile(r'"[^"]*"\s*\(')

FLAGS = (
    "-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden",
    "-fno-gnu-unique", "-fcf-protection=none", "-U_FORTIFY_SOURCE", "-w",
    "-fsanitize=alignment", "-fno-sanitize-recover=all", "-fsanitize-undefined-trap-on-error",
)  # fmt: skip
"""A misaligned access ends the process, as on a device."""


def build_command(files: Mapping[str, str], folder: Path, order: int = 0) -> tuple[str, ...]:
    """Write the translated sources into a folder, and say how g++ makes `kernel.so` there of them.

    `order` is in which threads and copies proceed: 0 rising and early, 1 falling and late, more: random.
    """
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(translate(text), encoding="utf-8")
    units = sorted(str(folder / path) for path in files if Path(path).suffix in (".cu", ".cpp"))
    ffi = ffi_folder()
    return (
        compiler()[0], *FLAGS, f"-DEMULATED_ORDER={order}", f"-I{Path(__file__).parent}", f"-I{ffi / 'include'}",
        "-include", _HEADER, "-x", "c++", *units, "-o", str(folder / "kernel.so"), f"-L{ffi / 'lib'}", "-ltvm_ffi",
    )  # fmt: skip


def translate(text: str) -> str:
    """Launches, dynamic shared memory and inline assembly as plain C++; lines stay where they are."""
    text = _INCLUDE.sub("", text)
    text = _DYNAMIC.sub(r"\1* \2 = static_cast<\1*>(emulated::dynamic_shared());", text)
    return _replaced(_replaced(text, _next_assembly), _next_launch)


def _replaced(text: str, find: Callable[[str], tuple[int, int, str] | None]) -> str:
    done = ""
    while (found := find(text)) is not None:
        begin, end, instead = found
        lost = text.count("\n", begin, end) - instead.count("\n")
        done += text[:begin] + instead + "\n" * max(0, lost)
        text = text[end:]
    return done + text


def _next_launch(text: str) -> tuple[int, int, str] | None:
    """`kernel<<<grid, block>>>(arguments)`."""
    at = text.find("<<<")
    if at < 0:
        return None
    before = text[:at].rstrip()
    kernel = _whole_name(before)
    configured = text.index(">>>", at)
    opened = text.index("(", configured)
    end = _closing(text, opened) + 1
    call = text[opened:end]
    pointer = f"reinterpret_cast<const void*>(&{kernel})"
    instead = f"emulated::launch({pointer}, {text[at + 3 : configured]}, [&] {{ {kernel}{call}; }})"
    return len(before) - len(kernel), end, instead


def _whole_name(before: str) -> str:
    """The name that a text ends with, template arguments included."""
    at = len(before)
    if before.endswith(">"):
        depth = 0
        while at > 0:
            at -= 1
            depth += {">": 1, "<": -1}.get(before[at], 0)
            if depth == 0:
                break
    name = re.search(r"[\w:]+$", before[:at])
    if name is None:
        raise UsageError(
            "a launch without a kernel's name", remedy="write kernel<<<grid, block, shared, stream>>>(...)"
        )
    return name[0] + before[at:]


def _next_assembly(text: str) -> tuple[int, int, str] | None:
    """`asm volatile("name.of.instruction operands;" : outputs : inputs : clobbers)`."""
    found = _ASM.search(text)
    if found is None:
        return None
    end = _closing(text, found.end() - 1)
    inside = text[found.end() : end]
    template = re.match(r'(?:\s*"(?:[^"\\]|\\.)*")+', inside)
    words = "".join(_STRING.findall(template[0])).replace("\\n", " ").split() if template else []
    if not words:
        raise UsageError(
            "assembly without a template", remedy='write asm volatile("instruction ...;" : outputs : inputs)'
        )
    name = re.sub(r"\W+", "_", words[0].rstrip(";")).strip("_")
    operands = []
    rest = inside[template.end() :] if template else ""
    for match in _OPERAND.finditer(rest):
        operands.append(rest[match.end() : _closing(rest, match.end() - 1)])
    return found.start(), end + 1, f"emulated::ptx::{name}({', '.join(operands)})"


def _closing(text: str, opened: int) -> int:
    """Where the parenthesis closes that opens there; those in strings don't count."""
    depth, quoted = 0, False
    for at in range(opened, len(text)):
        sign = text[at]
        if sign == '"' and text[at - 1] != "\\":
            quoted = not quoted
        if quoted:
            continue
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth == 0:
            return at
    raise UsageError("a parenthesis that never closes", remedy="mend the source: nvcc would refuse it too")
