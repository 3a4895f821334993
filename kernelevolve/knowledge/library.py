"""The documents, and which of them fit a situation: first the lines of the index are ranked, then texts are read."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from kernelevolve.errors import UsageError
from kernelevolve.knowledge.index import ANY, IndexLine, read_index
from kernelevolve.knowledge.query import Query
from kernelevolve.knowledge.words import words
from kernelevolve.prompts import Prompts, Shelf
from kernelevolve.schema import Document, Record

LEARNED = "learned/"
"""What the paths of documents begin with that come from the folder of skills."""

_GENERAL = frozenset({ANY, "cpu", "gpu", "x86", "nvidia", "amd"})
"""Tags that say little about the hardware: a document for an architecture is worth more there."""

_OPERATION, _BOTTLENECK, _ARCHITECTURE, _LANGUAGE, _WORDS = 3.0, 2.0, 1.0, 0.5, 2.0
"""What a fit is worth. A document about this very operation comes before one about its bottleneck, and both before
one that only shares words; words decide among equals."""

_OTHER = {"cpu": re.compile(r"\b(GPU|CUDA|Triton)\b"), "gpu": re.compile(r"\b(CPU|OpenMP)\b")}
"""Kind of device to what a heading says of a section that is about the other kind."""

_CLOSE = 0.5
"""share of the best line's score by words at which a document about other operations counts as related"""


class Match(Record):
    """A line of the index, and how well it fits."""

    line: IndexLine
    score: float
    always: bool = False


@dataclass(frozen=True)
class Library:
    """The knowledge hierarchy and, where a folder of skills was named, what past runs left there, as it was read."""

    lines: tuple[IndexLine, ...]
    documents: Mapping[str, Document]
    """by path; those of the folder of skills begin with `learned/`"""
    folder: Path
    """where the hierarchy lies"""
    _retrieved: dict[str, tuple[Document, ...]] = field(default_factory=dict, repr=False, compare=False)
    """by the query's digest: a run asks the same again and again"""

    @classmethod
    def load(cls, prompts: Prompts, skills: Path | None = None) -> "Library":
        """Read it; a folder of skills that isn't there yet is empty. What changes later is not seen.

        Raises `UsageError` for an index that is missing, ill-formed, or at odds with the documents.
        """
        shelves = [prompts.shelf]
        if skills is not None and skills.is_dir() and any(skills.glob("*.md")):
            shelves.append(Shelf(skills, LEARNED))
        lines: list[IndexLine] = []
        documents: dict[str, Document] = {}
        for shelf in shelves:
            for line in read_index(shelf):
                path = shelf.prefix + line.path
                lines.append(line.model_copy(update={"path": path}))
                documents[path] = Document(path=path, title=line.title, text=shelf.read(line.path))
        if Prompts.contract not in documents:
            raise UsageError(
                f"{prompts.knowledge} has no {Prompts.contract}",
                remedy="every brief carries it: write what a candidate may and may not do",
            )
        return cls(tuple(lines), documents, prompts.knowledge)

    def document(self, path: str) -> Document:
        """A document by its path. Raises `UsageError`."""
        if path not in self.documents:
            close = get_close_matches(path, self.documents, n=1)
            raise UsageError(
                f"there is no document {path}",
                remedy=f"did you mean {close[0]}?" if close else "kernelevolve knowledge list shows what there is",
            )
        return self.documents[path]

    def find(self, query: Query) -> tuple[Match, ...]:
        """The lines that fit, the most useful first.

        What is always included leads, then the best about the operation, about the very hardware and about the
        bottleneck, so that none of the three is crowded out by the others; then all others by their score. Lines for
        other hardware or another language never fit. Raises `UsageError` for a language without a page.
        """
        fitting = [line for line in self.lines if _admissible(line, query)]
        if not fitting:
            return ()
        always = self._always(query)
        by_words = _by_words(fitting, query)
        scored = [
            Match(line=line, score=round(_score(line, query, share), 6), always=line.path in always)
            for line, share in zip(fitting, by_words, strict=True)
            if line.path in always or _related(line, query, share)
        ]
        ranked = sorted(scored, key=lambda m: (-m.score, m.line.path))
        first = [m for page in always for m in ranked if m.line.path == page]
        for about in (_names_operation, _names_hardware, _names_bottleneck) if query.target else ():
            first += [m for m in ranked if m not in first and about(m.line, query)][:1]
        return (*first, *(m for m in ranked if m not in first))

    def retrieve(self, query: Query) -> tuple[Document, ...]:
        """The documents for a brief, the most useful first, within the query's limits.

        What is always included is never left out; of the others, one that is too long makes room for the next.
        """
        if query.digest not in self._retrieved:
            self._retrieved[query.digest] = tuple(self._within(query, self.find(query)))
        return self._retrieved[query.digest]

    def _always(self, query: Query) -> tuple[str, ...]:
        """The contract and the language's page: without them a kernel doesn't even build."""
        if query.language is None:
            return ()
        page = Prompts.language_page(query.language)
        if page not in self.documents:
            raise UsageError(
                f"there is no page about the language {query.language} in {self.folder}",
                remedy=f"write {page} and its line in index.md",
            )
        return (page, Prompts.contract)

    def _within(self, query: Query, matches: Sequence[Match]) -> Iterator[Document]:
        documents, characters = query.documents, query.characters
        for match in matches:
            if not match.always and not documents:
                return
            document = _for_device(self.documents[match.line.path], query)
            if not match.always and len(document.text) > characters:
                continue
            documents -= not match.always
            characters -= len(document.text)
            yield document


def _for_device(document: Document, query: Query) -> Document:
    """Without the sections whose headings name a device of the other kind."""
    other = _OTHER[query.hardware.device] if query.hardware else None
    if other is None:
        return document
    first, *sections = re.split(r"(?m)^(?=## )", document.text)
    kept = [section for section in sections if not other.search(section.partition("\n")[0])]
    return document.model_copy(update={"text": "".join((first, *kept))})


def _admissible(line: IndexLine, query: Query) -> bool:
    tags = query.platform
    return (
        (tags is None or ANY in line.hardware or not tags.isdisjoint(line.hardware))
        and (query.language is None or ANY in line.languages or query.language in line.languages)
        and (query.skills or not line.path.startswith((f"{Prompts.skills}/", LEARNED)))
    )


def _related(line: IndexLine, query: Query, by_words: float) -> bool:
    """Whether the document is about this operation, about any, or near it by its words."""
    return ANY in line.operations or _names_operation(line, query) or by_words >= _CLOSE


def _names_operation(line: IndexLine, query: Query) -> bool:
    asked = set(words(f"{query.target} {query.summary}"))
    return query.target in line.operations or any(asked.issuperset(words(tag)) for tag in line.operations if tag != ANY)


def _names_hardware(line: IndexLine, query: Query) -> bool:
    """Whether it is about this architecture, or a feature of it, rather than about all of a kind."""
    return not ((query.platform or frozenset()) - _GENERAL).isdisjoint(line.hardware)


def _names_bottleneck(line: IndexLine, query: Query) -> bool:
    # A search by words alone is no situation in which something is unknown.
    return query.bottleneck in line.bottlenecks and bool(query.target or query.bottleneck != "unknown")


def _score(line: IndexLine, query: Query, by_words: float) -> float:
    # A document about one bottleneck says more of it than one about all.
    share = (1 + 1 / len(line.bottlenecks)) / 2
    return (
        _OPERATION * _names_operation(line, query)
        + _BOTTLENECK * share * _names_bottleneck(line, query)
        + _ARCHITECTURE * _names_hardware(line, query)
        + _LANGUAGE * (query.language is not None and query.language in line.languages)
        + _WORDS * by_words
    )


def _by_words(lines: Sequence[IndexLine], query: Query) -> list[float]:
    """How well each line's words fit, as a share of the best one's, 0 to 1.

    BM25L (Lv and Zhai, CIKM 2011): like Okapi's BM25 it counts rare words more, but none less than nothing, so that
    a handful of lines can be ranked too.
    """
    from rank_bm25 import BM25L  # imports numpy

    named = query.bottleneck if query.bottleneck != "unknown" else ""
    text = " ".join((query.target, query.summary, named, query.change or ""))
    scores = [float(score) for score in BM25L([line.terms for line in lines]).get_scores(words(text))]
    best = max(scores)
    return [score / best if best > 0 else 0.0 for score in scores]
