import re
from pathlib import Path

import pytest

from kernelevolve.errors import StoreError, UsageError
from kernelevolve.runs import Runs


def test_asking_for_the_database_makes_nothing(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs")
    assert runs.database == tmp_path / "runs" / "kernelevolve.db"
    assert list(tmp_path.iterdir()) == []


def test_a_report_can_be_written_at_once(tmp_path: Path) -> None:
    paths = Runs(tmp_path / "runs").report_paths("topk-20260102-030405-3f9a")
    paths.html.write_text("<p>fast</p>")
    paths.markdown.write_text("fast")
    folder = tmp_path / "runs" / "topk-20260102-030405-3f9a"
    assert {path.name for path in folder.iterdir()} == {"report.html", "report.md"}


def test_a_new_name_tells_target_and_time_and_is_new() -> None:
    runs = Runs(Path("runs"))
    names = {runs.new_name("grouped_gemm") for _ in range(20)}
    assert len(names) > 15
    assert all(re.fullmatch(r"grouped_gemm-\d{8}-\d{6}-[0-9a-f]{4}", name) for name in names)


@pytest.mark.parametrize("name", ["", ".", "..", "../elsewhere", "/etc", "a/b"])
def test_a_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="can't be the name of a run"):
        Runs(tmp_path).folder_of(name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't make the folder"):
        Runs(tmp_path / "file").folder_of("topk")
