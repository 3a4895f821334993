from pathlib import Path

from kernelevolve.store import SqlStore
from kernelevolve.testing.store_contract import StoreContract


class TestSqlStore(StoreContract):
    def make_store(self, folder: Path) -> SqlStore:
        return SqlStore.open(folder / "kernelevolve.db")
