"""Search/replace blocks: reading them out of a reply, and applying them to files."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

_SEARCH = re.compile(r"^\s*<{5,9}\s*SEARCH\b.*$")
_MIDDLE = re.compile(r"^\s*={5,9}\s*$")
_REPLACE = re.compile(r"^\s*>{5,9}\s*REPLACE\b.*$")
_FENCE = re.compile(r"^\s*(?:`{3,}|~{3,})(?P<info>.*)$")
_PATH = re.compile(r"(?:^|[\s:=*`\"'#])(?P<path>[\w+-][\w.+/-]*\.\w{1,4})[*`\"']*:?\s*$")
_SHOWN = 80


class EditError(ValueError):
    """Blocks that say nothing definite. It stays within the proposer; its message is for whoever answers next."""


@dataclass(frozen=True)
class Edit:
    """Lines to look for, and what to put in their place."""

    search: tuple[str, ...]
    replace: tuple[str, ...]
    path: str | None = None
    """file that is meant; None means whichever holds the lines"""


def has_edits(reply: str) -> bool:
    """Whether a reply has at least one line that begins a block."""
    return any(_SEARCH.match(line) for line in reply.splitlines())


def edits_in(reply: str) -> tuple[Edit, ...]:
    """Every block of a reply. Raises `EditError` for one that isn't complete."""
    found: list[Edit] = []
    lines = reply.replace("\r\n", "\n").split("\n")
    at, path = 0, None
    while at < len(lines):
        if not _SEARCH.match(lines[at]):
            fence = _FENCE.match(lines[at])
            named = _PATH.search(fence["info"] if fence else lines[at].rstrip())
            path = named["path"] if named else path if fence or not lines[at].strip() else None
            at += 1
            continue
        middle = _find(lines, at + 1, _MIDDLE)
        end = _find(lines, middle + 1, _REPLACE) if middle is not None else None
        nested = _find(lines, at + 1, _SEARCH)
        if middle is None or end is None or (nested is not None and nested < end):
            raise EditError(
                f"block {len(found) + 1} is not complete: each one needs a line <<<<<<< SEARCH, a line ======= and a "
                "line >>>>>>> REPLACE"
            )
        found.append(Edit(tuple(lines[at + 1 : middle]), tuple(lines[middle + 1 : end]), path))
        at = end + 1
    return tuple(found)


def applied(files: Mapping[str, str], edits: Sequence[Edit]) -> dict[str, str]:
    """The files after every edit, in turn. Raises `EditError` where one fits nowhere or in several places."""
    found = {path: text.split("\n") for path, text in files.items()}
    for number, edit in enumerate(edits, 1):
        _apply(found, edit, f"block {number}")
    after = {path: "\n".join(lines) for path, lines in found.items()}
    if after == dict(files):
        raise EditError("the blocks change nothing: REPLACE has to differ from SEARCH")
    return after


def _find(lines: Sequence[str], start: int, pattern: re.Pattern[str]) -> int | None:
    return next((n for n in range(start, len(lines)) if pattern.match(lines[n])), None)


@dataclass(frozen=True)
class _Place:
    """Where an edit fits."""

    path: str
    line: int


def _apply(files: dict[str, list[str]], edit: Edit, name: str) -> None:
    if not any(line.strip() for line in edit.search):
        if edit.path is None or edit.path in files:
            raise EditError(f"{name} has nothing in SEARCH: copy the lines to be replaced there")
        files[edit.path] = [*edit.replace, ""]
        return
    meant = _meant(files, edit, name)
    search, replace = list(edit.search), list(edit.replace)
    places = _places(meant, search, _exact)
    if not places:
        search = _trimmed(search)
        places = _places(meant, search, _loose)
        if places and len(places) == 1:
            replace = _shifted(replace, search[0], meant[places[0].path][places[0].line])
    if len(places) > 1:
        where = ", ".join(f"{place.path}:{place.line + 1}" for place in places[:6])
        raise EditError(
            f"{name}: its SEARCH lines occur {len(places)} times ({where}): copy more of the lines around the place"
        )
    if not places:
        raise EditError(f"{name}: its SEARCH lines are not in the kernel{_nearest(meant, search)}")
    place = places[0]
    files[place.path][place.line : place.line + len(search)] = replace


def _meant(files: dict[str, list[str]], edit: Edit, name: str) -> dict[str, list[str]]:
    """The files that an edit may be about: the one that it names, where the kernel has several."""
    if edit.path in files:
        return {edit.path: files[edit.path]}
    if edit.path is not None and len(files) > 1 and _fits(edit.path, files):
        raise EditError(f"{name} names {edit.path}, which the kernel doesn't have: it has {', '.join(files)}")
    return files


def _fits(path: str, files: Mapping[str, object]) -> bool:
    """Whether it can be meant as a file of the kernel, and isn't a number or a word with a point in it."""
    return PurePosixPath(path).suffix in {PurePosixPath(known).suffix for known in files}


def _exact(line: str) -> str:
    return line


def _loose(line: str) -> str:
    return re.sub(r"\s+", "", line)


def _places(files: Mapping[str, Sequence[str]], search: Sequence[str], key: Callable[[str], str]) -> list[_Place]:
    """Where all lines agree by what `key` keeps of them."""
    wanted, size = [key(line) for line in search], len(search)
    found = []
    for path, lines in files.items():
        keys = [key(line) for line in lines]
        found += [_Place(path, n) for n in range(len(keys) - size + 1) if keys[n : n + size] == wanted]
    return found


def _trimmed(lines: list[str]) -> list[str]:
    """Without blank lines at either end."""
    kept = [n for n, line in enumerate(lines) if line.strip()]
    return lines[kept[0] : kept[-1] + 1]


def _shifted(lines: Sequence[str], said: str, there: str) -> list[str]:
    """Lines with the indentation of the place, where the block had another: in Python it has a meaning."""
    indent = [line[: len(line) - len(line.lstrip())] for line in (said, there)]
    if indent[0] == indent[1] or not (indent[1].endswith(indent[0]) or indent[0].endswith(indent[1])):
        return list(lines)
    if len(indent[1]) > len(indent[0]):
        more = indent[1][: len(indent[1]) - len(indent[0])]
        return [more + line if line.strip() else line for line in lines]
    less = indent[0][: len(indent[0]) - len(indent[1])]
    return [line.removeprefix(less) for line in lines]


def _nearest(files: Mapping[str, Sequence[str]], search: Sequence[str]) -> str:
    """A hint at the first line of a block that fits nowhere: the line of the kernel that looks most like it."""
    wanted = next(line.strip() for line in search if line.strip())
    lines = {line.strip(): f"{path}:{n}" for path, text in files.items() for n, line in enumerate(text, 1)}
    close = difflib.get_close_matches(wanted, lines, n=1, cutoff=0.5)
    if not close:
        return f": no line is like {wanted[:_SHOWN]!r}; copy the lines exactly as they are shown"
    if close[0] == wanted:
        return (
            f": {lines[wanted]} has its first line, but the lines after it differ; copy them exactly as they are shown"
        )
    return f": nearest to its first line is {lines[close[0]]}, {close[0][:_SHOWN]!r}; copy lines exactly"
