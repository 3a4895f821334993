"""The command `triage`: exit codes, and what it prints."""

import json
from pathlib import Path

import pytest
from triaging import gpu_target

from kernelevolve.cli.app import main


@pytest.fixture
def command(tiny_target_folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("KERNELEVOLVE_CACHE", str(cache_dir))
    return ["triage", "tiny", "--targets", str(tiny_target_folder)]


def test_a_candidate_that_fails_ends_with_its_own_exit_code(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "kernel.py"
    file.write_text("def run(x, y):\n    pass\n")
    assert main([*command, str(file), "--json", "--hardware", "nvidia-a100"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    assert found["hardware_key"] == "nvidia-a100-sxm4-80gb"
    assert [finding["kind"] for finding in found["diagnostics"]] == ["parse"]
    assert main([*command, str(file)]) == 3
    assert "there is no kernel" in capsys.readouterr().out


def test_a_device_that_nobody_knows_and_a_file_that_is_not_there_are_mistakes_of_usage(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(tmp_path / "none.py")]) == 2
    (tmp_path / "kernel.py").write_text("")
    assert main([*command, str(tmp_path / "kernel.py"), "--hardware", "nvidia-h20"]) == 2
    assert "nvidia-h200" in capsys.readouterr().err


@pytest.mark.usefixtures("command")
def test_a_candidate_that_passes_gets_an_estimate_that_is_called_one(
    tiny_target_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = gpu_target(tiny_target_folder, tmp_path)
    words = ["triage", "tiny", str(folder / "tiny" / "seeds" / "triton" / "scale.py"), "--targets", str(folder)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [e["workload"] for e in found["estimates"]] == ["gpu-1024x4096"]
    assert found["estimates"][0]["low_us"] < found["estimates"][0]["estimated_us"] < found["estimates"][0]["high_us"]
    assert main(words) == 0
    assert "estimates by a static model, not measurements" in capsys.readouterr().out
