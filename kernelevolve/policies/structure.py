"""What a kernel looks like: its structure, and the numbers in it."""

import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from kernelevolve.schema import Candidate

_C_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_PYTHON_COMMENT = re.compile(r"#[^\n]*")
_TOKEN = re.compile(r"[A-Za-z_]\w*+|(?<![\w)\].])[-+]\.?\d(?:[eE][-+]|[\w.])*|\.?\d(?:[eE][-+]|[\w.])*|[^\s\w]")
_NUMBER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
_SHINGLE = 3
"""tokens in a row that are compared as one"""
_SKETCH = 64
"""shingles that stand for all: the Jaccard distance is then right to within about .06"""
_KNOWN = 256
"""sources whose structure is remembered"""


@dataclass(frozen=True)
class Structure:
    """A kernel as seen from afar."""

    sketch: frozenset[int]
    """the smallest hashes of its shingles, numbers blanked out (bottom-k sketch: Broder, "On the resemblance and
    containment of documents", 1997)"""
    numbers: tuple[float, ...]
    """the numbers of its source in their order, then its tunables by name; sign(x) log2(1 + |x|), so that doubling
    a tile counts like a step"""
    words: tuple[str, ...]
    """tunables that aren't numbers, by name"""

    def apart(self, other: "Structure") -> float:
        """Jaccard distance of the structures, 0 (the same but for numbers) to 1."""
        if self.sketch == other.sketch:
            return 0.0
        smallest = sorted(self.sketch | other.sketch)[:_SKETCH]
        both = sum(shingle <= smallest[-1] for shingle in self.sketch & other.sketch)
        return 1 - both / len(smallest)

    def distance(self, other: "Structure") -> float | None:
        """Euclidean distance of the numbers, a different word counting as 1; None where they don't correspond."""
        if len(self.numbers) != len(other.numbers) or len(self.words) != len(other.words):
            return None
        words = sum(mine != theirs for mine, theirs in zip(self.words, other.words, strict=True))
        return math.sqrt(words + sum((a - b) ** 2 for a, b in zip(self.numbers, other.numbers, strict=True)))


class Structures:
    """Reads structures; those of the sources seen last are remembered, since a family's members share them."""

    def __init__(self) -> None:
        self._known: dict[str, Structure] = {}

    def of(self, candidate: Candidate) -> Structure:
        """The structure of a candidate."""
        source = self._known.get(candidate.family)
        if source is None:
            source = self._known[candidate.family] = _read(candidate.files)
            if len(self._known) > _KNOWN:
                del self._known[next(iter(self._known))]
        chosen = [value for _, value in sorted(candidate.tunables.items())]
        return Structure(
            sketch=source.sketch,
            numbers=(*source.numbers, *(_scaled(v) for v in chosen if isinstance(v, int))),
            words=tuple(v for v in chosen if isinstance(v, str)),
        )


def _read(files: dict[str, str]) -> Structure:
    tokens = [token for path, text in sorted(files.items()) for token in _tokens(path, text)]
    values = {token: value for token in set(tokens) if (value := _number(token)) is not None}
    numbers = [_scaled(values[token]) for token in tokens if token in values]
    blank = ["0" if token in values else token for token in tokens]
    rows = set(map(" ".join, zip(*(blank[i:] for i in range(_SHINGLE)), strict=False))) or {" ".join(blank)}
    return Structure(sketch=_smallest(rows), numbers=tuple(numbers), words=())


def _smallest(rows: Iterable[str]) -> frozenset[int]:
    return frozenset(sorted(map(zlib.crc32, map(str.encode, rows)))[:_SKETCH])


def _tokens(path: str, text: str) -> list[str]:
    comment = _PYTHON_COMMENT if PurePath(path).suffix == ".py" else _C_COMMENT
    return _TOKEN.findall(comment.sub(" ", text))


def _number(token: str) -> float | None:
    """A literal's value without its suffix; None for another token."""
    if token[0].isalpha() or (match := _NUMBER.match(token)) is None:
        return None
    return float(int(match[0], 16)) if "x" in match[0].lower() else float(match[0])


def _scaled(value: float) -> float:
    return math.copysign(math.log2(1 + abs(value)), value)
