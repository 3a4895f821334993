import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from kernelevolve.errors import StoreError
from kernelevolve.store import SqlStore
from kernelevolve.store.tables import Base
from kernelevolve.testing.records import a_candidate, a_passed, a_proposal, a_run_spec


def schema_of(path: Path) -> set[str]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {" ".join(sql.split()) for (sql,) in rows if "alembic_version" not in sql}


def clauses_of(path: Path) -> dict[str, set[str]]:
    """Each table and index with its columns and constraints, in whatever order they were declared."""
    statements = (sql.partition("(") for sql in schema_of(path))
    return {head.strip(): {part.strip(" )") for part in body.split(", ")} for head, _, body in statements}


def test_the_migrations_lead_to_the_declared_tables(tmp_path: Path) -> None:
    SqlStore.open(tmp_path / "migrated.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_the_migrations_lead_to_the_declared_constraints(tmp_path: Path) -> None:
    SqlStore.open(tmp_path / "migrated.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'declared.db'}")
    Base.metadata.create_all(engine)
    engine.dispose()
    assert clauses_of(tmp_path / "migrated.db") == clauses_of(tmp_path / "declared.db")


def test_a_run_from_before_models_keeps_the_order_of_its_evaluations(tmp_path: Path) -> None:
    path = tmp_path / "kernelevolve.db"
    with SqlStore.open(path) as store:
        store.create_run(a_run_spec())
        run = a_run_spec().run
        for number in (1, 0):
            store.add_proposal(run, number, a_proposal(), a_candidate())
            store.add_evaluation(run, number, a_passed(speedup=1.0 + number))
        store.add_evaluation(run, 0, a_passed(purpose="certify"))
        before = store.run(run), store.arrivals(run)
    with sqlite3.connect(path) as connection:
        for table in ("arrivals", "answers", "questions", "exchanges", "asks"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("DROP INDEX ix_candidates_normal")
        connection.execute("ALTER TABLE candidates DROP COLUMN normal")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    with SqlStore.open(path) as store:
        assert (store.run(run), store.arrivals(run)) == before
        assert [arrival.number for arrival in store.arrivals(run)] == [1, 0]
        store.add_proposal(run, 2, a_proposal(), a_candidate())


def test_a_file_left_empty_by_a_crash_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "kernelevolve.db"
    path.touch()
    with pytest.raises(StoreError, match="isn't up to this version"):
        SqlStore.open(path, read_only=True)
    with SqlStore.open(path) as store:
        store.create_run(a_run_spec())
        assert store.specs() == (a_run_spec(),)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "kernelevolve.db"
    SqlStore.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = schema_of(path)
    with pytest.raises(StoreError, match="newer version") as caught:
        SqlStore.open(path, read_only=read_only)
    assert "upgrade kernelevolve" in caught.value.remedy
    assert schema_of(path) == before


def test_two_processes_may_make_the_store_at_the_same_moment(tmp_path: Path) -> None:
    path = tmp_path / "kernelevolve.db"
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from kernelevolve.store import SqlStore\n"
        "from kernelevolve.testing.records import a_candidate, a_passed, a_proposal, a_run_spec\n"
        "path, run = Path(sys.argv[1]), sys.argv[2]\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "with SqlStore.open(path) as store:\n"
        "    store.create_run(a_run_spec(run))\n"
        "    for number in range(20):\n"
        "        store.add_proposal(run, number, a_proposal(), a_candidate())\n"
        "        store.add_evaluation(run, number, a_passed())\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), run],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for run in ("one", "two")
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, complaints
    with SqlStore.open(path) as store:
        assert {(s.run, s.evaluated) for s in store.summaries()} == {("one", 20), ("two", 20)}
