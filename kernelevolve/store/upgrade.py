"""Brings a database to the schema of this version."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from kernelevolve.errors import StoreError
from kernelevolve.store.engine import reading, writing


def upgrade(engine: Engine, path: Path, *, read_only: bool) -> None:
    """Apply the missing migrations in one transaction. Raises `StoreError` for a schema from the future."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    with reading(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == scripts.get_current_head():
        return
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreError(
            f"{path} was written by a newer version of kernelevolve (schema {current})",
            remedy="upgrade kernelevolve, or choose another folder for the runs",
        )
    if read_only:
        raise StoreError(
            f"{path} isn't up to this version of kernelevolve (schema {current})",
            remedy="open it once for writing, for instance with a new search, to bring it up to date",
        )
    # Whoever comes second waits for the lock here, and then finds nothing left to do.
    with writing(engine, lasting=True) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
