"""Code in the documents is tried: whole candidates are admitted and built, parts compile, Triton is admitted."""

import ast
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from kernelevolve.errors import ToolchainError
from kernelevolve.languages.cpp import FLAGS, Cpp, compiler
from kernelevolve.languages.cuda import Cuda, toolkit
from kernelevolve.languages.cxx import ffi_folder
from kernelevolve.languages.triton import Triton
from kernelevolve.prompts import Prompts
from kernelevolve.schema import Candidate

PROMPTS = Prompts(Path(__file__).parent.parent.parent / "prompts")
EXPORT = "TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)"
AROUND = ("immintrin.h", "omp.h", "algorithm", "cmath", "cstdint", "cstring", "vector")
"""Headers that a part of a kernel may take for granted."""
NEWEST = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mamx-tile", "-mamx-bf16", "-mamx-int8")
"""Parts for instruction sets that this machine may lack are looked at too."""


@dataclass(frozen=True)
class Block:
    document: str
    line: int
    language: str
    text: str

    @property
    def whole(self) -> bool:
        return EXPORT in self.text


def blocks() -> list[Block]:
    found = []
    for path in PROMPTS.shelf.documents():
        text = PROMPTS.shelf.read(path)
        for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            found.append(Block(path, text.count("\n", 0, match.start()) + 2, match[1], match[2]))
    return found


BLOCKS = blocks()


def named(*, language: str, whole: bool) -> list[object]:
    chosen = [b for b in BLOCKS if b.language == language and b.whole == whole]
    return [pytest.param(b, id=f"{b.document}:{b.line}") for b in chosen]


def compiled(command: list[str], source: str, folder: Path, name: str, *more: str) -> None:
    (folder / name).write_text(source)
    done = subprocess.run([*command, name, *more], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_languages_that_are_tried_stand_in_documents() -> None:
    assert {block.language for block in BLOCKS} <= {"cpp", "cuda", "python"}


@pytest.mark.parametrize("block", [p for w in (True, False) for p in named(language="cpp", whole=w)])
def test_no_block_of_cpp_is_malformed(block: Block) -> None:
    assert not Cpp().admit({"main.cpp": block.text if block.whole else f"{block.text}\n{EXPORT};"})


@pytest.mark.slow
@pytest.mark.parametrize("block", named(language="cpp", whole=True))
def test_a_whole_candidate_in_cpp_builds(block: Block, tmp_path: Path) -> None:
    candidate = Candidate(language="cpp", files={"main.cpp": block.text})
    ffi = ffi_folder()
    link = ["-shared", "-Wl,-z,defs", f"-I{ffi / 'include'}", f"-L{ffi / 'lib'}", "-o", "kernel.so"]
    # The library comes last: a linker takes from it what was asked for before.
    compiled([compiler()[0], *FLAGS, *link], Cpp().sources(candidate)["main.cpp"], tmp_path, "main.cpp", "-ltvm_ffi")


@pytest.mark.slow
@pytest.mark.parametrize("block", named(language="cpp", whole=False))
def test_a_part_in_cpp_compiles(block: Block, tmp_path: Path) -> None:
    source = "".join(f"#include <{name}>\n" for name in AROUND) + block.text
    compiled([compiler()[0], *FLAGS, *NEWEST, "-fsyntax-only"], source, tmp_path, "part.cpp")
    compiled([compiler()[0], "-std=c++17", "-O1", "-fopenmp", "-mavx2", "-fsyntax-only"], source, tmp_path, "part.cpp")


@cache
def nvcc() -> str | None:
    try:
        return str(toolkit().nvcc)
    except ToolchainError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("block", [p for w in (True, False) for p in named(language="cuda", whole=w)])
def test_a_block_of_cuda_compiles(block: Block, tmp_path: Path) -> None:
    if nvcc() is None:
        pytest.skip("needs nvcc")
    if block.whole:
        assert not Cuda().admit({"main.cu": block.text})
    source = Cuda().sources(Candidate(language="cuda", files={"main.cu": block.text}))["main.cu"]
    flags = [
        "-std=c++17",
        "--expt-relaxed-constexpr",
        "-arch=sm_90a",
        f"-I{ffi_folder() / 'include'}",
        "-c",
        "-o",
        "x.o",
    ]
    compiled([str(nvcc()), *flags], source, tmp_path, "main.cu")


@pytest.mark.parametrize(
    "block",
    [p for p in named(language="python", whole=False) if "def run(" in p.values[0].text],  # type: ignore[attr-defined]
)
def test_a_whole_candidate_in_triton_is_admitted(block: Block) -> None:
    assert not Triton().admit({"main.py": block.text})
    assert not Triton().hints({"main.py": block.text})


@pytest.mark.parametrize("block", named(language="python", whole=False))
def test_a_part_in_python_parses_and_its_lines_are_short(block: Block) -> None:
    ast.parse(block.text)
    assert all(len(line) <= 120 for line in block.text.splitlines())


def test_every_language_page_shows_a_whole_candidate() -> None:
    for language, fence in (("cpp", "cpp"), ("cuda", "cuda"), ("triton", "python")):
        page = [b for b in BLOCKS if b.document == Prompts.language_page(language) and b.language == fence]
        assert any(b.whole or "def run(" in b.text for b in page)
