"""The self-check of the knowledge hierarchy."""

import re
from collections.abc import Iterator
from pathlib import Path

from kernelevolve.catalog import LANGUAGES
from kernelevolve.errors import UsageError
from kernelevolve.knowledge.library import LEARNED, Library
from kernelevolve.prompts import Prompts

_LINES = (50, 150)
"""A document with less says too little to be worth a place in a brief; one with more is two."""


def problems(prompts: Prompts, skills: Path | None = None) -> list[str]:
    """Every mistake, each in a sentence that names its file; empty means none."""
    try:
        library = Library.load(prompts, skills)
    except UsageError as error:
        return [str(error)]
    named = {line.path for line in library.lines}
    missing = [
        f"there is no {prompts.knowledge / page}, the page about the language {language}"
        for language in LANGUAGES.names()
        if (page := Prompts.language_page(language)) not in named
    ]
    return [*missing, *_in_documents(library)]


def _in_documents(library: Library) -> Iterator[str]:
    for line in library.lines:
        text = library.documents[line.path].text
        first, _, rest = text.partition("\n")
        if first != f"# {line.title}":
            yield f"{line.path} begins with {first!r}, and the index calls it {line.title!r}"
        if not re.search(r"^## Sources$", rest, re.MULTILINE):
            yield f"{line.path} has no section Sources"
        length = text.count("\n")
        if not line.path.startswith((f"{Prompts.skills}/", LEARNED)) and not _LINES[0] <= length <= _LINES[1]:
            yield f"{line.path} has {length} lines, and {_LINES[0]} to {_LINES[1]} are readable"
        if text.count("```") % 2:
            yield f"{line.path} has a block of code without an end"
