"""The layout of the folder `prompts/`: what is said to a language model, and the knowledge that it is given."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Prompts:
    """The folder of the templates and the knowledge."""

    folder: Path

    @property
    def knowledge(self) -> Path:
        """The root of the knowledge hierarchy, with its `index.md`."""
        return self.folder / "knowledge"
