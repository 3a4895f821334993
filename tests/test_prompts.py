"""The folder of prompts: what lies where."""

from pathlib import Path

import pytest

from kernelevolve.errors import UsageError
from kernelevolve.prompts import Prompts, Shelf
from kernelevolve.resources import prompts_dir


def test_the_shipped_folder_has_templates_and_the_pages_that_every_brief_carries() -> None:
    prompts = Prompts(prompts_dir())
    assert all((prompts.templates / name).is_file() for name in prompts.template_names())
    for page in (Prompts.contract, *map(Prompts.language_page, ("cpp", "cuda", "triton"))):
        assert page in prompts.shelf.documents()


def test_templates_are_those_of_the_folder_itself(tmp_path: Path) -> None:
    for name in ("brief.j2", "ask.j2", "notes.md"):
        (tmp_path / name).write_text("")
    (tmp_path / "knowledge").mkdir()
    (tmp_path / "knowledge" / "inner.j2").write_text("")
    assert Prompts(tmp_path).template_names() == ("ask.j2", "brief.j2")


def test_a_shelf_lists_documents_below_it_and_not_its_index(tmp_path: Path) -> None:
    (tmp_path / "guidance").mkdir()
    for name in ("index.md", "b.md", "guidance/a.md", "guidance/a.txt"):
        (tmp_path / name).write_text(f"text of {name}")
    shelf = Shelf(tmp_path)
    assert shelf.documents() == ("b.md", "guidance/a.md")
    assert shelf.read("guidance/a.md") == "text of guidance/a.md"


def test_a_document_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.md.*knowledge list"):
        Shelf(tmp_path).read("a.md")
    (tmp_path / "a.md").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"a\.md is not UTF-8"):
        Shelf(tmp_path).read("a.md")
