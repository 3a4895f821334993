"""The index of a shelf: what each document is about, in one line of a table."""

import re
from functools import cached_property

from pydantic import Field

from kernelevolve.errors import UsageError
from kernelevolve.hardware import architectures
from kernelevolve.knowledge.words import words
from kernelevolve.prompts import Shelf
from kernelevolve.schema import Record

ANY = "any"
"""The tag that fits everything."""

COLUMNS = ("document", "operations", "bottlenecks", "hardware", "languages", "what it gives")

_LINK = re.compile(r"\[(?P<title>[^\]]+)\]\((?P<path>[^)\s]+)\)")
_KINDS = frozenset({ANY, "cpu", "gpu", "x86", "aarch64", "nvidia", "amd", "amd-cpu", "intel-cpu", "arm-cpu"})
_FEATURE = re.compile(r"(avx|amx_|sse|fma|f16c|neon|sve|sme|i8mm|bf16|asimd|x86-64)[\w.-]*")


class IndexLine(Record):
    """A document as the index announces it. A tag `any` fits everything."""

    path: str = Field(description="within the shelf, for instance guidance/tiling.md")
    title: str
    operations: tuple[str, ...] = Field(description="targets, or words for what they compute")
    bottlenecks: tuple[str, ...] = Field(description="names of bottlenecks that it helps against")
    hardware: tuple[str, ...] = Field(description="tags of a platform: cpu, x86, avx512f, gpu, nvidia, sm_90, gfx942")
    languages: tuple[str, ...]
    gives: str = Field(description="what a reader gets from it, in one sentence")

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """The words that a search goes by."""
        tags = (*self.operations, *self.bottlenecks, *self.hardware, *self.languages)
        return words(" ".join((self.title, self.gives, *(tag for tag in tags if tag != ANY))))

    def row(self) -> str:
        """The line of the table."""
        tags = (self.operations, self.bottlenecks, self.hardware, self.languages)
        return f"| [{self.title}]({self.path}) | {' | '.join(' '.join(t) for t in tags)} | {self.gives} |"


def header() -> str:
    """The two lines that begin the table."""
    return f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}"


def read_index(shelf: Shelf) -> tuple[IndexLine, ...]:
    """The lines of a shelf's index, in its order.

    Raises `UsageError` for an ill-formed line, a document without a line and a line without its document.
    """
    lines = tuple(
        _line(shelf, number, text)
        for number, text in enumerate(shelf.read("index.md").splitlines(), 1)
        if text.startswith("|") and not re.match(r"\|\s*(document\s*\||:?-+)", text)
    )
    named = [line.path for line in lines]
    there = shelf.documents()
    for path in named:
        if path not in there:
            raise UsageError(
                f"{shelf.index} names {path}, which isn't there", remedy="write the document, or remove its line"
            )
        if named.count(path) > 1:
            raise UsageError(f"{shelf.index} names {path} twice", remedy="keep one of the two lines")
    for path in there:
        if path not in named:
            raise UsageError(
                f"{shelf.folder / path} has no line in {shelf.index}",
                remedy=f"add one: | [title]({path}) | {' | '.join(COLUMNS[1:])} |",
            )
    return lines


def _line(shelf: Shelf, number: int, text: str) -> IndexLine:
    where = f"{shelf.index}:{number}"
    cells = [cell.strip() for cell in text.strip().strip("|").split("|")]
    link = _LINK.fullmatch(cells[0])
    if link is None or len(cells) != len(COLUMNS) or not all(cells):
        raise UsageError(
            f"{where}: ill-formed line {text[:80]!r}",
            remedy="write | [title](path) | operations | bottlenecks | hardware | languages | what it gives |, "
            "with tags apart by spaces and the word any where all are meant",
        )
    operations, bottlenecks, hardware, languages = (tuple(cell.split()) for cell in cells[1:5])
    for tag in hardware:
        if tag not in _KINDS and not _FEATURE.fullmatch(tag) and architectures.vendor_of(tag) is None:
            raise UsageError(
                f"{where}: {tag!r} is no tag for hardware",
                remedy=f"use {', '.join(sorted(_KINDS))}, an architecture such as sm_90 or gfx942, or a CPU's feature",
            )
    return IndexLine(
        path=link["path"], title=link["title"], operations=operations, bottlenecks=bottlenecks, hardware=hardware,
        languages=languages, gives=cells[5],
    )  # fmt: skip
