"""Fenced blocks of code in a reply."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_OPEN = re.compile(r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`]*?)[ \t]*$")
_PATH = r"[\w.+-]+(?:/[\w.+-]+)*\.\w{1,4}"
_NAMED = re.compile(
    rf"(?:^|[\s:,{{])(?:(?:file|filename|path|title)\s*[=:]\s*)?[\"']?(?P<path>{_PATH})[\"']?\}}?(?=[\s,}}]|$)"
)
_FIRST_LINE = re.compile(
    rf"^\s*(?://|#|/\*)\s*(?:file|filename|path)\s*[:=]\s*(?P<path>{_PATH})\s*(?:\*/)?\s*$", re.IGNORECASE
)
_HEADING = re.compile(
    rf"^\s*(?:[#>*+-]+\s*)*(?:file(?:name)?\s*:?\s*)?[*_`]*(?P<path>{_PATH})[*_`]*\s*:?[*_]*\s*$", re.IGNORECASE
)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    tag: str
    """language tag in lower case; empty where there is none"""
    path: str | None
    """file that it says it is, on its fence, in its first line or in the line before it"""
    text: str
    line: int
    """where it opens in the reply, from 1"""
    closed: bool


def blocks(reply: str) -> tuple[Block, ...]:
    """Every fenced block of a reply, in its order. Fences may be indented; what they hold is then shifted back."""
    found: list[Block] = []
    lines = reply.replace("\r\n", "\n").split("\n")
    at, before = 0, ""
    while at < len(lines):
        opening = _OPEN.match(lines[at])
        if opening is None:
            before = lines[at] if lines[at].strip() else before
            at += 1
            continue
        end = next((n for n in range(at + 1, len(lines)) if _closes(lines[n], opening["fence"])), None)
        inside = lines[at + 1 : end] if end is not None else lines[at + 1 :]
        found.append(_block(opening, inside, before, at + 1, closed=end is not None))
        at, before = (len(lines) if end is None else end + 1), ""
    return tuple(found)


def fenced(files: Mapping[str, str], tag: str) -> str:
    """Files as blocks of a reply, in the form that `blocks` reads back."""
    return "\n\n".join(_fenced(path, text, tag) for path, text in files.items())


def _fenced(path: str, text: str, tag: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{tag} file={path}\n{text.rstrip()}\n{fence}"


def _closes(line: str, fence: str) -> bool:
    if fence not in line:
        return False
    marks = line.strip()
    return len(marks) >= len(fence) and set(marks) == {fence[0]}


def _block(opening: re.Match[str], inside: list[str], before: str, line: int, *, closed: bool) -> Block:
    inside = [text.removeprefix(opening["indent"]) for text in inside]
    tag, named = _info(opening["info"])
    first = next((n for n, text in enumerate(inside) if text.strip()), None)
    if first is not None and (found := _FIRST_LINE.match(inside[first])):
        named, inside = named or found["path"], inside[first + 1 :]
    if named is None and (found := _HEADING.match(before)):
        named = found["path"]
    return Block(tag=tag, path=named, text="\n".join(inside).strip("\n") + "\n", line=line, closed=closed)


def _info(info: str) -> tuple[str, str | None]:
    """Language tag and file name of an info string: `cpp`, `cpp file=main.cpp`, `cpp:main.cpp`, `main.cpp`."""
    named = _NAMED.search(info)
    tag = re.match(r"[\w+#-]+", info)
    whole = named is not None and named.start("path") == 0
    return ("" if tag is None or whole else tag[0].lower()), (named["path"] if named else None)
