"""What a model's reply holds: a kernel and the idea behind it, or the reason why there is none."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from kernelevolve.languages.base import Language
from kernelevolve.proposers.edits import EditError, applied, edits_in, has_edits
from kernelevolve.proposers.fences import Block, blocks, fenced
from kernelevolve.schema import Answer, CallFailed, Reply, Trouble

_FOREIGN = frozenset(
    {
        "asm", "bash", "cmake", "console", "diff", "json", "latex", "log", "make", "markdown", "md", "mermaid",
        "output", "patch", "plaintext", "ptx", "sh", "shell", "text", "toml", "txt", "yaml",
    }
)  # fmt: skip
"""Tags of blocks that are shown beside a kernel and aren't part of one."""

_IDEA = re.compile(r"^\W*idea\W*?[:\-]\W*(?P<said>.*)$", re.IGNORECASE)
_LONGEST_IDEA = 600


@dataclass(frozen=True)
class Kernel:
    """What was found in a reply. Not admitted yet."""

    files: dict[str, str]
    idea: str
    edited: bool = False
    """made by search/replace blocks out of a parent, and not written as a whole"""


def kernel_in(answer: Answer, language: Language, base: Mapping[str, str] | None = None) -> Kernel | Trouble:
    """The kernel that an answer holds.

    `base` are the files that search/replace blocks are about: those of the only parent. What is written as a whole
    is the whole kernel, whatever the parent's files were. An answer that can be read in two ways is trouble.
    """
    if isinstance(answer, CallFailed):
        reason: Literal["empty", "no_reply"] = "empty" if answer.reason == "empty" else "no_reply"
        return Trouble(reason=reason, detail=f"{answer.reason}: {answer.message}")
    if trouble := _unusable(answer):
        return trouble
    text, idea = answer.text, idea_of(answer.text)
    try:
        if has_edits(text):
            if base is None:
                return _malformed("search/replace blocks need exactly one parent: write the whole kernel")
            return Kernel(applied(base, edits_in(text)), idea, edited=True)
        whole = _whole(text, language, base)
    except EditError as error:
        return _malformed(str(error))
    if not whole:
        detail = "the reply has no code block: write every file of the kernel in a fenced block"
        return Trouble(reason="prose", detail=detail)
    return Kernel(whole, idea)


def idea_of(text: str) -> str:
    """The line that begins with `Idea:`, else the first paragraph before any code; shortened."""
    lines = re.split(r"^\s*(?:`{3,}|~{3,}|<{5,9}\s*SEARCH)", text, maxsplit=1, flags=re.MULTILINE)[0].splitlines()
    for number, line in enumerate(lines):
        if found := _IDEA.match(line):
            lines = [found["said"], *lines[number + 1 :]]
            break
    paragraph: list[str] = []
    for line in lines:
        if line.strip():
            paragraph.append(line.strip())
        elif paragraph:
            break
    idea = " ".join(paragraph).strip("*_ ")
    return idea if len(idea) <= _LONGEST_IDEA else f"{idea[: _LONGEST_IDEA - 3].rstrip()}..."


def written(files: Mapping[str, str], idea: str = "") -> str:
    """A reply that `kernel_in` reads back as these files: for whoever has a kernel and no model that says it."""
    return f"Idea: {idea}\n\n{fenced(files, '')}\n" if idea else f"{fenced(files, '')}\n"


def _unusable(answer: Reply) -> Trouble | None:
    if answer.stop == "refusal":
        said = " ".join(answer.text.split())[:200]
        return Trouble(reason="refusal", detail=f"the model refused: {said}" if said else "the model refused")
    if not answer.text.strip():
        return Trouble(reason="empty", detail="the reply has no text")
    if answer.stop == "length":
        used = answer.usage.output_tokens
        return Trouble(reason="truncated", detail=f"cut off by the token limit after {used} tokens: answer shorter")
    return None


def _malformed(detail: str) -> Trouble:
    return Trouble(reason="malformed_edit", detail=detail)


def _whole(text: str, language: Language, base: Mapping[str, str] | None) -> dict[str, str]:
    """Files that are written as a whole; none where there is no code. Raises `EditError`."""
    found = [block for block in blocks(text) if block.tag not in _FOREIGN and block.text.strip()]
    if not found:
        return {}
    if not found[-1].closed and language.admit({_main_file(language, base): found[-1].text}):
        raise EditError(f"the code block that opens in line {found[-1].line} of the reply is never closed")
    named = [block for block in found if block.path is not None]
    # A test or a note beside the kernel has a name as well; where all names are wrong, the language says so.
    named = [block for block in named if PurePosixPath(str(block.path)).suffix in language.suffixes] or named
    if not named:
        return {_main_file(language, base): _only(found, language, base).text}
    files: dict[str, str] = {}
    for block in named:
        assert block.path is not None
        if files.get(block.path, block.text) != block.text:
            raise EditError(f"two blocks say that they are {block.path}: write each file once")
        files[block.path] = block.text
    return files


def _only(found: list[Block], language: Language, base: Mapping[str, str] | None) -> Block:
    """The block that is the kernel, where none has a name: the only one, or the only one that could be."""
    if len(found) == 1:
        return found[0]
    name = _main_file(language, base)
    kernels = [block for block in found if not language.admit({name: block.text})]
    if len({block.text for block in kernels}) == 1:
        return kernels[0]
    raise EditError(
        f"the reply has {len(found)} code blocks without a file name, and {len(kernels) or 'none'} of them could be "
        "the kernel: put each file into one block, and name it on its fence"
    )


def _main_file(language: Language, base: Mapping[str, str] | None) -> str:
    """Name of a file that has none: that of the parent's only file, else `main`."""
    return next(iter(base)) if base and len(base) == 1 else f"main{language.suffixes[0]}"
