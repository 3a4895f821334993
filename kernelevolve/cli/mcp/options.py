"""What the server was started with, for itself and for the commands that it starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernelevolve import settings
from kernelevolve.settings import Settings


@dataclass(frozen=True)
class ServerOptions:
    """The settings of the server, and the environment in which its commands go by the same."""

    settings: Settings
    environment: Mapping[str, str]

    @classmethod
    def load(cls, file: Path | None = None, **command_line: object) -> "ServerOptions":
        """Raises `SettingsError`."""
        return cls(settings.load(file, **command_line), settings.environment(file, **command_line))
