"""Source text without what a compiler doesn't see: comments and blank space."""

import io
import re
import tokenize
from collections.abc import Iterable, Mapping
from functools import lru_cache
from operator import itemgetter
from pathlib import PurePosixPath

_STRING = r'"(?:[^"\\\n]|\\.)*"'
_CHARACTER = r"'(?:[^'\\\n]|\\.)+'"
_RAW_STRING = r'R"(?P<fence>[^()\\\s]{0,16})\(.*?\)(?P=fence)"'
_PREFIX = "(?:u8|[uUL])?"
# Every alternative begins with another letter: the engine then leaps from one such letter to the next.
_SPOKEN = re.compile(rf"{_RAW_STRING}|{_STRING}|{_CHARACTER}|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_TUNABLE = re.compile(r"//[ \t]*tunable\b(.*)")
_DIRECTIVE = re.compile(r"[ \t]*#.*")
# What is frequent comes first. A word before a quote may be the prefix of a literal, which is tried before the word.
_PLAIN = (
    r"[^\W\d]\w*+(?![\"'])|[(){}\[\];,?~]"
    rf"|{_PREFIX}{_STRING}|{_PREFIX}{_CHARACTER}"
    r"|\.?\d(?:[eEpP][+-]|[\w.']|)*|[^\W\d]\w*"
    r"|<=>|<<=|>>=|\.\.\.|->\*|::|\+\+|--|->|\.\*|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|##|\S"
)
_TOKEN = re.compile(_PLAIN, re.DOTALL)
_TOKEN_OR_RAW = re.compile(rf"{_PREFIX}{_RAW_STRING}|{_PLAIN}", re.DOTALL)
_TUNABLE_MARK = "\0tunable"
_END = "#"
"""A directive that isn't one: what comes before it is done."""

_LAYOUT = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER})
_NAMELESS = frozenset({tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE})


def normalised(files: Mapping[str, str]) -> dict[str, str]:
    """Every file by what is left of it; the name of an only file doesn't matter, and is empty.

    Equal results mean equal kernels. Python is told by the suffix `.py`; everything else is read as C++, whose
    comments, strings and operators CUDA shares. The lines that declare tunables are comments that stay.
    """
    found = {path: _normal(path, text) for path, text in sorted(files.items())}
    return found if len(found) != 1 else {"": next(iter(found.values()))}


@lru_cache(maxsize=256)
def _normal(path: str, text: str) -> str:
    """Kept for a while: a step asks for the same source several times, of proposals and of candidates."""
    return _python(text) if PurePosixPath(path).suffix == ".py" else _cxx(text)


def _python(text: str) -> str:
    """Tokens by kind and text; what can't be told apart into tokens stays as it is."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return text.strip()
    return " ".join(
        f"<{tokenize.tok_name[token.type]}>" if token.type in _NAMELESS else token.string
        for token in tokens
        if token.type not in _LAYOUT
    )


def _cxx(text: str) -> str:
    """Tokens, with a line of its own for each directive and each declared tunable; where other lines break is gone."""
    found: list[str] = []
    code: list[str] = []
    for line in [*_SPOKEN.sub(_unspoken, text.replace("\r\n", "\n").replace("\\\n", " ")).split("\n"), _END]:
        if line.startswith(_TUNABLE_MARK) or _DIRECTIVE.fullmatch(line):
            found += [" ".join(_tokens("\n".join(code))), " ".join(line.split())]
            code = []
        else:
            code.append(line)
    return "\n".join(part for part in found[:-1] if part)


def _tokens(code: str) -> Iterable[str]:
    return map(itemgetter(0), _TOKEN_OR_RAW.finditer(code)) if 'R"' in code else _TOKEN.findall(code)


def _unspoken(match: re.Match[str]) -> str:
    said = match[0]
    if not said.startswith("/"):
        return said
    if tunable := _TUNABLE.fullmatch(said):
        return f"\n{_TUNABLE_MARK} {' '.join(tunable[1].split())}\n"
    return " "
