"""The commands `knowledge ...`."""

import json
import shutil
from pathlib import Path

import pytest

from kernelevolve.cli.app import main
from kernelevolve.runs import Runs
from kernelevolve.schema import Lineage
from kernelevolve.store import SqlStore
from kernelevolve.testing.records import a_candidate, a_passed, a_proposal, a_run_spec

ROOT = Path(__file__).parent.parent.parent
RUN = "double-20260102-030405-0001"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the repository: what is found there is what ships."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERNELEVOLVE_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def searched(tmp_path: Path) -> None:
    """A store with a run in which a rewrite helped."""
    draft = a_candidate()
    child = a_candidate(tunables={"BLOCK": 16}, lineage=Lineage(change="rewrite", parents=(draft.digest,)))
    with SqlStore.open(Runs(tmp_path / "runs").database) as store:
        store.create_run(a_run_spec(RUN))
        store.create_run(a_run_spec("double-20260102-030405-0002"))
        for number, (candidate, speedup) in enumerate(((draft, 1.0), (child, 1.5))):
            store.add_proposal(RUN, number, a_proposal(candidate, idea="Longer blocks."), candidate)
            store.add_evaluation(RUN, number, a_passed(candidate, speedup))


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["knowledge", *words]) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_list_shows_every_document(capsys: pytest.CaptureFixture[str]) -> None:
    lines = json.loads(said(capsys, "list", "--json"))
    assert len(lines) >= 40
    assert "guidance/tiling.md" in said(capsys, "list")


def test_show_prints_a_document_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "prompts" / "knowledge" / "guidance" / "tiling.md").read_text()
    assert said(capsys, "show", "guidance/tiling.md").strip() == text.strip()
    assert json.loads(said(capsys, "show", "guidance/tiling.md", "--json"))["text"] == text
    assert "did you mean guidance/tiling.md?" in said(capsys, "show", "tiling.md", code=2)


def test_search_says_what_a_brief_would_carry(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("search", "--target", "topk", "--bottleneck", "memory", "--language", "triton")
    found = json.loads(said(capsys, *words, "--hardware", "nvidia-h200", "--json"))
    assert [match["line"]["path"] for match in found if match["always"]] == [
        "languages/triton.md",
        "constraints/contract.md",
    ]
    assert "guidance/selection_gpu.md" in [match["line"]["path"] for match in found if match["carried"]]
    assert not any("hardware/amd" in match["line"]["path"] for match in found)
    assert "guidance/lookup.md" in said(capsys, "search", "bucketize", "borders")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--target", "topkk"), "topk"),
        (("--hardware", "nvidia-h2000"), "nvidia-h200"),
        (("--language", "mojo"), "languages/mojo.md"),
        (("x", "--prompts", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_search_names_what_it_does_not_know(
    words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in said(capsys, "search", *words, code=2)


def test_check_passes_what_ships_and_names_a_document_without_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert said(capsys, "check") == "ok\n"
    shutil.copytree(ROOT / "prompts", tmp_path / "prompts")
    (tmp_path / "prompts" / "knowledge" / "guidance" / "more.md").write_text("# More\n")
    assert "more.md has no line in" in said(capsys, "check", code=2)
    assert json.loads(said(capsys, "check", "--json", code=2))["ok"] is False
    assert "more.md has no line in" in said(capsys, "list", code=2)


def test_learn_writes_a_page_that_later_searches_find(searched: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert "changes that helped: 1" in said(capsys, "learn", RUN)
    assert "learned/double-cpp-test-cpu-2c.md" in said(capsys, "list")
    assert "Longer blocks." in said(capsys, "show", "learned/double-cpp-test-cpu-2c.md")
    assert "learned/" in said(capsys, "search", "double", "--skills")
    assert "learned/" not in said(capsys, "search", "double")
    assert said(capsys, "check") == "ok\n"


def test_learn_says_when_there_is_nothing_to_learn(searched: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert "settled nothing" in said(capsys, "learn", "double-20260102-030405-0002")
    assert json.loads(said(capsys, "learn", "double-20260102-030405-0002", "--json"))["document"] is None


def test_learn_names_a_run_that_is_not_there(searched: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert "double-20260102-030405-0009" in said(capsys, "learn", "double-20260102-030405-0009", code=2)
