import random
import resource
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from kernelevolve.errors import StoreError
from kernelevolve.store import SqlStore, UnknownRunError
from kernelevolve.testing.records import a_candidate, a_passed, a_proposal, a_run_spec, an_event

SPEC = a_run_spec()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "kernelevolve.db"
    with SqlStore.open(path) as store:
        store.create_run(SPEC)
        store.add_proposal(SPEC.run, 0, a_proposal(), a_candidate())
        store.add_evaluation(SPEC.run, 0, a_passed())
    return path


def test_a_lock_that_outlasts_the_patience_is_an_error_and_no_loss(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    with SqlStore.open(path, timeout_s=0.05) as store:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another process"):
            store.add_event(SPEC.run, an_event())
        assert store.run(SPEC.run).steps[0].evaluation == a_passed()
        other.execute("ROLLBACK")
        store.add_event(SPEC.run, an_event())
        assert store.run(SPEC.run).events == (an_event(),)
    other.close()


def test_a_store_that_is_locked_altogether_can_not_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "kernelevolve.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked by another process"):
        SqlStore.open(path, timeout_s=0.05)
    other.close()


def test_a_file_that_is_no_database_is_called_damaged_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "kernelevolve.db"
    path.write_bytes(b"These are not the bytes of a database. " * 200)
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(StoreError, match="damaged") as caught:
            SqlStore.open(path, read_only=read_only)
        assert "move the file away" in caught.value.remedy
    assert path.read_bytes() == before


def test_a_file_with_overwritten_pages_is_called_damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = random.Random(0).randbytes(len(content) - 4096)
    path.write_bytes(content)

    def read_everything() -> None:
        with SqlStore.open(path) as store:
            store.run(SPEC.run)

    with pytest.raises(StoreError, match="damaged"):
        read_everything()


@pytest.mark.parametrize("bad", [zlib.compress(b"something else"), b"not even compressed"])
def test_an_object_that_is_not_what_its_digest_says_is_never_returned(path: Path, bad: bytes) -> None:
    with SqlStore.open(path) as store:
        digest = store.put_object(b"the log of a build")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE objects SET data = ? WHERE digest = ?", (bad, digest))
    with SqlStore.open(path) as store, pytest.raises(StoreError, match=f"damaged.*{digest}"):
        store.get_object(digest)


def test_a_record_of_another_version_is_named_as_such(path: Path) -> None:
    with SqlStore.open(path) as store:
        digest = store.put_object(b'{"outcome":"passed","score":-1}')
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE evaluations SET record = ?", (digest,))
    with SqlStore.open(path) as store, pytest.raises(StoreError, match="this version can't read") as caught:
        store.run(SPEC.run)
    assert "the version of kernelevolve that wrote it" in caught.value.remedy


@pytest.fixture
def no_room(path: Path) -> Iterator[None]:
    """The file may not grow by a page."""

    def limit(connection: sqlite3.Connection, _: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Engine, "connect", limit)
    yield
    event.remove(Engine, "connect", limit)


@pytest.mark.usefixtures("no_room")
def test_a_full_disk_is_an_error_that_keeps_what_was_committed(path: Path) -> None:
    with SqlStore.open(path) as store:
        with pytest.raises(StoreError, match="full") as caught:
            store.put_object(random.Random(0).randbytes(100_000))
        assert "free some space" in caught.value.remedy
        assert store.run(SPEC.run).steps[0].evaluation == a_passed()


def test_a_write_that_the_system_refuses_is_an_error_that_keeps_what_was_committed(path: Path) -> None:
    script = (
        "import random, sys\n"
        "from pathlib import Path\n"
        "from kernelevolve.errors import StoreError\n"
        "from kernelevolve.store import SqlStore\n"
        "with SqlStore.open(Path(sys.argv[1])) as store:\n"
        "    try:\n"
        "        for _ in range(100):\n"
        "            store.put_object(random.randbytes(100_000))\n"
        "    except StoreError as error:\n"
        "        print(error)\n"
    )
    limit = path.stat().st_size + 500_000
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr
    assert "check the disk" in done.stdout or "is full" in done.stdout
    with SqlStore.open(path) as store:
        assert store.run(SPEC.run).steps[0].evaluation == a_passed()
        store.put_object(b"there is room again")


def test_a_folder_that_can_not_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't be opened"):
        SqlStore.open(tmp_path / "file" / "kernelevolve.db")


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be opened"):
        SqlStore.open(tmp_path)


def test_an_unknown_run_is_the_askers_slip(tmp_path: Path) -> None:
    with SqlStore.open(tmp_path / "kernelevolve.db") as store:
        with pytest.raises(UnknownRunError) as caught:
            store.run("topk")
        assert caught.value.exit_code == 2
        assert "no runs yet" in caught.value.remedy


EVERY_WRITE = """
import os, signal, sys
from pathlib import Path
from kernelevolve.schema import Event
from kernelevolve.store import SqlStore
from kernelevolve.testing.records import *

SPEC, RUN = a_run_spec(), a_run_spec().run
WRITES = (
    lambda s: s.create_run(SPEC),
    lambda s: s.add_event(RUN, an_event()),
    lambda s: s.add_calibration(RUN, a_calibration()),
    lambda s: s.add_proposal(RUN, 0, a_proposal(), a_candidate()),
    lambda s: s.add_evaluation(RUN, 0, a_passed()),
    lambda s: s.add_statistics(RUN, 0, {"size": 1.0}),
    lambda s: s.add_evaluation(RUN, 0, a_passed(purpose="confirm")),
)
for survivors in range(len(WRITES) + 1):
    if os.fork() == 0:
        store = SqlStore.open(Path(sys.argv[1]) / f"{survivors}.db")
        for write in WRITES[:survivors]:
            write(store)
        os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.wait()
    assert os.WTERMSIG(status) == signal.SIGKILL
"""


def test_kill_after_any_commit_loses_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", EVERY_WRITE, str(tmp_path)], check=True, timeout=60)
    for survivors in range(8):
        with SqlStore.open(tmp_path / f"{survivors}.db") as store:
            assert len(store.specs()) == (survivors >= 1)
            if not store.specs():
                continue
            run = store.run(SPEC.run)
            there = (
                run.spec == SPEC,
                len(run.events) == 1,
                run.calibration is not None,
                len(run.steps) == 1,
                bool(run.steps) and run.steps[0].evaluation == a_passed(),
                len(store.statistics(SPEC.run)) == 1,
                bool(run.steps) and len(run.steps[0].confirmations) == 1,
            )
            assert there == tuple(number < survivors for number in range(7))


STEADY_WRITER = """
import sys
from pathlib import Path
from kernelevolve.store import SqlStore
from kernelevolve.testing.records import *

RUN = a_run_spec().run
with SqlStore.open(Path(sys.argv[1])) as store:
    for number in range(1, 100_000):
        candidate = a_candidate(tunables={"BLOCK": number})
        store.add_proposal(RUN, number, a_proposal(candidate), candidate)
        store.add_evaluation(RUN, number, a_passed(candidate))
        print(number, flush=True)
"""


@pytest.mark.parametrize("reported", [1, 10])
def test_kill_at_any_moment_keeps_all_that_was_reported(path: Path, reported: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STEADY_WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(reported):
            assert writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        later = [int(line) for line in writer.stdout if line.endswith("\n")]
    last = max([reported, *later])
    with SqlStore.open(path) as store:
        steps = store.run(SPEC.run).steps
        assert [step.number for step in steps] == list(range(len(steps)))
        assert len(steps) > last
        assert all(step.evaluation is not None for step in steps[: last + 1])
        store.add_proposal(SPEC.run, len(steps), a_proposal(), a_candidate())
