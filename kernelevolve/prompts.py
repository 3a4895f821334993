"""The layout of the folder `prompts/`: what is said to a language model, and the knowledge that it is given."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kernelevolve.errors import UsageError


@dataclass(frozen=True)
class Shelf:
    """A folder of documents with their index, and what its documents' names begin with elsewhere."""

    folder: Path
    prefix: str = ""

    @property
    def index(self) -> Path:
        """The file with one line for each document."""
        return self.folder / "index.md"

    def documents(self) -> tuple[str, ...]:
        """Every document but the index, sorted, by its path within the folder."""
        found = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.md") if path != self.index)
        return tuple(sorted(found))

    def read(self, path: str) -> str:
        """The text of a document, or of the index. Raises `UsageError`."""
        try:
            return (self.folder / path).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"can't read {self.folder / path}: {error.strerror}",
                remedy="kernelevolve knowledge list shows what there is",
            ) from error
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{self.folder / path} is not UTF-8: {error.reason}", remedy="save the file as UTF-8"
            ) from error


@dataclass(frozen=True)
class Prompts:
    """The folder of the templates and the knowledge."""

    folder: Path

    contract: ClassVar[str] = "constraints/contract.md"
    """the document that every brief carries, whatever is asked for"""
    skills: ClassVar[str] = "skills"
    """the folder of what earlier runs learned, within the knowledge; such documents are left out unless asked for"""

    @property
    def templates(self) -> Path:
        """The folder in which templates are looked for: `*.j2`, not below it."""
        return self.folder

    def template_names(self) -> tuple[str, ...]:
        """Every template, sorted."""
        return tuple(sorted(path.name for path in self.templates.glob("*.j2")))

    @property
    def knowledge(self) -> Path:
        """The root of the knowledge hierarchy, with its `index.md`."""
        return self.folder / "knowledge"

    @property
    def shelf(self) -> Shelf:
        """The documents of the knowledge hierarchy."""
        return Shelf(self.knowledge)

    @classmethod
    def language_page(cls, language: str) -> str:
        """The document that says how kernels are written in a language."""
        return f"languages/{language}.md"
