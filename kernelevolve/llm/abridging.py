"""Briefs for whoever remembers the earlier ones: what an answered brief has shown is only named."""

import re
from collections.abc import Iterable, Iterator

from kernelevolve.schema import ModelRequest

_PARTS = re.compile(
    r'<document path="(?P<document>[^"\n]+)">\n.*?\n</document>'
    r"|^# The (?P<section>task: [^\n]*|machine)\n.*?"
    r"(?=^# (?:The machine|The parent: |Parent \d|What (?:was|is) |A kernel of )|\Z)"
    r"|^```(?P<language>\w+) file=(?P<file>\S+)\n.*?^```$",
    re.DOTALL | re.MULTILINE,
)
"""Documents, the task and the machine, and the files of parents and examples: what recurs word by word."""


def abridged(request: ModelRequest, earlier: Iterable[tuple[str, ModelRequest]]) -> ModelRequest:
    """A question without what the earlier ones, each under the name of its brief, have shown already."""
    shown: dict[str, str] = {}
    for brief, other in earlier:
        for text in (other.system, *_texts(other.prompt)):
            shown.setdefault(text, brief)

    def named(part: re.Match[str]) -> str:
        brief = shown.get(part[0].rstrip())
        if brief is None:
            return part[0]
        if part["document"]:
            return f'<document path="{part["document"]}" as in brief {brief} />'
        if part["section"]:
            return f"# The {part['section']}\n\nAs in brief {brief}.\n\n"
        return f"The file `{part['file']}` is as in brief {brief}."

    system = f"The rules are those of brief {shown[request.system]}." if request.system in shown else request.system
    return request.model_copy(update={"system": system, "prompt": _PARTS.sub(named, request.prompt)})


def _texts(prompt: str) -> Iterator[str]:
    return (part[0].rstrip() for part in _PARTS.finditer(prompt))
