"""A knowledge hierarchy with mistakes: each is named with its file and what to do."""

from pathlib import Path

import pytest

from kernelevolve.errors import UsageError
from kernelevolve.knowledge import Library, Query
from kernelevolve.knowledge.checking import problems
from kernelevolve.knowledge.index import header
from kernelevolve.prompts import Prompts

CONTRACT = "| [Contract](constraints/contract.md) | any | any | any | any | What is allowed. |"
NOTES = "| [Notes](notes.md) | topk | memory | cpu | cpp | What was noted. |"


@pytest.fixture
def prompts(tmp_path: Path) -> Prompts:
    """A small hierarchy: the contract, and notes."""
    write(tmp_path, CONTRACT, NOTES)
    return Prompts(tmp_path)


def write(folder: Path, *lines: str) -> None:
    (folder / "knowledge" / "constraints").mkdir(parents=True, exist_ok=True)
    (folder / "knowledge" / "index.md").write_text("\n".join(("# Index", "", header(), *lines, "")))
    for name, title in (("constraints/contract.md", "Contract"), ("notes.md", "Notes")):
        (folder / "knowledge" / name).write_text(f"# {title}\n" + "line\n" * 50 + "\n## Sources\n")


def refused(prompts: Prompts) -> str:
    with pytest.raises(UsageError) as caught:
        Library.load(prompts)
    return str(caught.value)


def test_a_small_hierarchy_is_enough(prompts: Prompts) -> None:
    library = Library.load(prompts)
    assert [line.path for line in library.lines] == ["constraints/contract.md", "notes.md"]
    assert library.find(Query(summary="notes"))[0].line.path == "notes.md"


def test_a_document_without_a_line_is_named_with_the_line_to_add(prompts: Prompts) -> None:
    (prompts.knowledge / "more.md").write_text("# More\n")
    said = refused(prompts)
    assert "more.md has no line in" in said
    assert "[title](more.md)" in said


def test_a_line_without_its_document_is_named(prompts: Prompts) -> None:
    (prompts.knowledge / "notes.md").unlink()
    assert "names notes.md, which isn't there" in refused(prompts)


def test_a_line_may_not_lead_out_of_the_folder(prompts: Prompts, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("# Secret\n")
    write(tmp_path, CONTRACT, NOTES, NOTES.replace("notes.md", "../secret.md"))
    assert "../secret.md, which isn't there" in refused(prompts)


@pytest.mark.parametrize(
    "line",
    [
        "| [Notes](notes.md) | topk | memory | cpu | cpp |",
        "| notes.md | topk | memory | cpu | cpp | What was noted. |",
        "| [Notes](notes.md) | topk | | cpu | cpp | What was noted. |",
        "| [Notes](notes.md) | topk | memory | cpu | cpp | What | was noted. |",
    ],
)
def test_an_ill_formed_line_is_named_with_its_number(prompts: Prompts, tmp_path: Path, line: str) -> None:
    write(tmp_path, CONTRACT, line)
    said = refused(prompts)
    assert "index.md:6: ill-formed line" in said
    assert "[title](path)" in said


def test_a_tag_that_no_hardware_bears_is_named(prompts: Prompts, tmp_path: Path) -> None:
    write(tmp_path, CONTRACT, NOTES.replace("| cpu |", "| hoper |"))
    assert "'hoper' is no tag for hardware" in refused(prompts)


def test_a_document_that_is_named_twice_is_an_error(prompts: Prompts, tmp_path: Path) -> None:
    write(tmp_path, CONTRACT, NOTES, NOTES)
    assert "names notes.md twice" in refused(prompts)


def test_without_a_contract_nothing_can_be_briefed(prompts: Prompts, tmp_path: Path) -> None:
    (prompts.knowledge / "constraints" / "contract.md").unlink()
    write(tmp_path, NOTES)
    (prompts.knowledge / "constraints" / "contract.md").unlink()
    assert "has no constraints/contract.md" in refused(prompts)


def test_without_an_index_the_folder_is_no_hierarchy(prompts: Prompts) -> None:
    prompts.shelf.index.unlink()
    assert "can't read" in refused(prompts)


def test_the_check_finds_what_loading_lets_pass(prompts: Prompts) -> None:
    notes = prompts.knowledge / "notes.md"
    notes.write_text("# Other title\n```cpp\nint a;\n")
    found = "\n".join(problems(prompts))
    for part in ("begins with '# Other title'", "no section Sources", "has 3 lines", "without an end", "language cpp"):
        assert part in found


def test_the_check_says_in_one_line_why_nothing_can_be_loaded(prompts: Prompts) -> None:
    (prompts.knowledge / "more.md").write_text("# More\n")
    (found,) = problems(prompts)
    assert "more.md has no line" in found
