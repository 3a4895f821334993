from pathlib import Path

import pytest

from kernelevolve.errors import StoreError
from kernelevolve.schema import Document, Parent
from kernelevolve.store import SqlStore
from kernelevolve.testing.landscape import a_brief
from kernelevolve.testing.records import (
    a_candidate,
    a_hardware,
    a_passed,
    a_proposal,
    a_run_spec,
    a_target,
    an_event,
)

SPEC = a_run_spec()


def test_a_store_makes_the_folder_that_it_lies_in(tmp_path: Path) -> None:
    SqlStore.open(tmp_path / "not" / "there" / "kernelevolve.db").close()
    assert (tmp_path / "not" / "there" / "kernelevolve.db").is_file()


@pytest.mark.parametrize("name", ["with blank.db", "100%25.db", "what?mode=memory.db", "a#b.db", "ü.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        with SqlStore.open(tmp_path / name) as store:
            store.put_object(b"here")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_three_hundred_evaluations_stay_in_one_file(tmp_path: Path) -> None:
    with SqlStore.open(tmp_path / "kernelevolve.db") as store:
        store.create_run(SPEC)
        for number in range(300):
            candidate = a_candidate(tunables={"BLOCK": number})
            store.add_proposal(SPEC.run, number, a_proposal(candidate), candidate)
            store.add_evaluation(SPEC.run, number, a_passed(candidate))
        while_open = len(list(tmp_path.iterdir()))
        assert len(store.run(SPEC.run).steps) == 300
    assert while_open <= 3
    assert [path.name for path in tmp_path.iterdir()] == ["kernelevolve.db"]


def test_members_of_a_family_share_their_sources(tmp_path: Path) -> None:
    source = "".join(f"// {number * 7919 % 104729:x}\n" for number in range(20_000))
    path = tmp_path / "kernelevolve.db"
    with SqlStore.open(path) as store:
        store.create_run(SPEC)
        for number in range(50):
            candidate = a_candidate(files={"main.cpp": source}, tunables={"BLOCK": number})
            store.add_proposal(SPEC.run, number, a_proposal(candidate), candidate)
        assert store.run(SPEC.run).steps[49].candidate == candidate
    assert path.stat().st_size < 10 * len(source)


def test_runs_of_one_target_share_it(tmp_path: Path) -> None:
    path = tmp_path / "kernelevolve.db"
    target = a_target(files={"reference.py": "".join(f"# {n * 7919 % 104729}\n" for n in range(20_000))})
    with SqlStore.open(path) as store:
        for number in range(20):
            store.create_run(a_run_spec(f"run-{number}", target=target, hardware=a_hardware()))
        assert all(spec.target == target for spec in store.specs())
    assert path.stat().st_size < 4 * len(target.files["reference.py"])


def test_a_thousand_briefs_share_what_they_have_in_common(tmp_path: Path) -> None:
    long = "".join(f"{n * 7919 % 104729} registers, tiles and barriers\n" for n in range(2_000))
    target = a_target(files={"reference.py": long})
    parent = Parent(candidate=a_candidate(files={"main.cpp": long}), evaluation=a_passed())
    documents = tuple(Document(path=f"guidance/{n}.md", text=f"{n}{long}") for n in range(4))
    path = tmp_path / "kernelevolve.db"
    with SqlStore.open(path) as store:
        store.create_run(SPEC)
        for step in range(60):
            brief = a_brief(step, "rewrite", (parent,))
            store.add_ask(SPEC.run, step, brief.model_copy(update={"target": target, "documents": documents}))
        assert len(store.asks(SPEC.run)) == 60
        briefs = [ask.brief for ask in store.asks(SPEC.run)]
        assert briefs[-1].documents == documents
        assert briefs[-1].parents == (parent,)
    assert path.stat().st_size < 8 * len(long)


def test_a_store_opened_for_reading_sees_what_is_written_later(tmp_path: Path) -> None:
    path = tmp_path / "kernelevolve.db"
    with SqlStore.open(path) as writer, SqlStore.open(path, read_only=True) as reader:
        assert reader.specs() == ()
        writer.create_run(SPEC)
        assert reader.specs() == (SPEC,)


def test_a_store_opened_for_reading_refuses_to_write(tmp_path: Path) -> None:
    path = tmp_path / "kernelevolve.db"
    with SqlStore.open(path) as store:
        store.create_run(SPEC)
    with SqlStore.open(path, read_only=True) as store:
        assert store.specs() == (SPEC,)
        with pytest.raises(StoreError):
            store.add_event(SPEC.run, an_event())


def test_opening_for_reading_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        SqlStore.open(tmp_path / "runs" / "kernelevolve.db", read_only=True)
    assert list(tmp_path.iterdir()) == []
