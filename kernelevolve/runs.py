"""The layout of the folder `runs/`: the database, and one folder a run with its report."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kernelevolve.errors import StoreError, UsageError


@dataclass(frozen=True)
class ReportPaths:
    """Where the report of a run goes."""

    html: Path
    markdown: Path


@dataclass(frozen=True)
class Runs:
    """The folder that searches leave their results in."""

    folder: Path

    @property
    def database(self) -> Path:
        """The file that the store keeps every run in."""
        return self.folder / "kernelevolve.db"

    def folder_of(self, run: str) -> Path:
        """The run's own folder, made if need be. Raises `UsageError` for what can't name a folder."""
        if run in {"", ".", ".."} or Path(run).name != run:
            raise UsageError(f"{run!r} can't be the name of a run", remedy="choose one that `runs list` shows")
        folder = self.folder / run
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"can't make the folder {folder}: {error.strerror}",
                remedy="check that you may write there and that the disk has room",
            ) from error
        return folder

    def report_paths(self, run: str) -> ReportPaths:
        """Where the report of a run goes; its folder is there afterwards."""
        folder = self.folder_of(run)
        return ReportPaths(html=folder / "report.html", markdown=folder / "report.md")

    def new_name(self, target: str) -> str:
        """A name for a new run of a target: `<target>-<date>-<time>-<four random digits>`, in UTC."""
        return f"{target}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
