"""What the server was started with, in the words that its commands are started with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernelevolve import settings
from kernelevolve.settings import Settings

_SEARCH = (
    "settings", "targets", "prompts", "registry", "runs", "hardware", "language", "threads", "workers",
    "require_sandbox",
)  # fmt: skip
_EVAL = ("settings", "targets", "hardware", "language", "threads", "require_sandbox")
_RESUME = ("settings", "targets", "prompts", "registry", "runs")


@dataclass(frozen=True)
class ServerOptions:
    """The settings of the server, and which of them were given on its own command line.

    The commands inherit its environment and its folder, and thereby read the same settings file.
    """

    settings: Settings
    given: Mapping[str, str]

    @classmethod
    def load(cls, file: Path | None, **command_line: object) -> "ServerOptions":
        """Raises `SettingsError`."""
        chosen = settings.load(file, **command_line)
        given = {name: str(value) for name, value in {"settings": file, **command_line}.items() if value is not None}
        return cls(chosen, given)

    def search(self, **more: object) -> list[str]:
        """Options for the command `search`; `more` come before those of the server."""
        return _words({**self._of(_SEARCH), **more})

    def resume(self) -> list[str]:
        """Options for the command `search --resume`: a run goes by what it was asked, not by today's settings."""
        return _words(self._of(_RESUME))

    def evaluate(self, **more: object) -> list[str]:
        """Options for the command `eval`; `more` come before those of the server."""
        return _words({**self._of(_EVAL), **more})

    def _of(self, names: tuple[str, ...]) -> dict[str, object]:
        return {name: self.given[name] for name in names if name in self.given}


def _words(options: Mapping[str, object]) -> list[str]:
    given = ((name.replace("_", "-"), value) for name, value in options.items() if value is not None)
    return [f"--{name}={value}" for name, value in given]
