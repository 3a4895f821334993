"""The script that brings up a GPU model: parts are bounded in time, leave their results, and aren't done twice."""

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def suite():
    spec = importlib.util.spec_from_file_location("gpu_suite", ROOT / "scripts" / "lib" / "gpu_suite.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_suite"] = module
    spec.loader.exec_module(module)
    return module


def python(suite, name, code, **changes):
    return suite.Part(name, 1.0, (sys.executable, "-c", code), **changes)


def test_a_part_leaves_what_it_printed_and_how_it_can_be_run_again(suite, tmp_path):
    part = python(suite, "sum", "print('{\"total\": 3}')")
    assert suite.run(part, tmp_path, 60) == "done"
    record = json.loads((tmp_path / "sum.json").read_text())
    assert record["result"] == {"total": 3}
    assert record["command"] == list(part.argv)
    assert suite.done_before(tmp_path / "sum.json") == "done"


def test_a_part_that_fails_is_tried_again_next_time(suite, tmp_path):
    part = python(suite, "fails", "import sys; print('so far'); print('why', file=sys.stderr); sys.exit(3)")
    assert suite.run(part, tmp_path, 60) == "failed with exit code 3"
    assert json.loads((tmp_path / "fails.json").read_text())["result"] == ["so far"]
    assert (tmp_path / "fails.log").read_text() == "why\n"
    assert suite.done_before(tmp_path / "fails.json") is None


def test_an_exit_code_that_says_that_nothing_won_is_a_result(suite, tmp_path):
    assert suite.run(python(suite, "no-win", "raise SystemExit(4)", fine=(0, 4)), tmp_path, 60) == "done"


def test_a_part_past_its_time_is_ended_with_all_that_it_started(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "LEAST_S", 2.0)
    code = "import subprocess; print('begun', flush=True); subprocess.run(['sleep', '600'])"
    assert "stopped" in suite.run(python(suite, "endless", code), tmp_path, 2.0)
    assert json.loads((tmp_path / "endless.json").read_text())["result"] == ["begun"]


def test_every_target_is_tested_benchmarked_and_searched(suite, tmp_path):
    names = [part.name for part in suite.parts(tmp_path, "nvidia-h200", 30.0)]
    assert {"tests", "ceilings", "estimate"} <= set(names)
    for target in suite.TARGETS:
        assert {f"seeds-{target}", f"search-{target}", f"certified-{target}"} <= set(names)
    assert sum(part.share for part in suite.parts(tmp_path, "nvidia-h200", 30.0)) == pytest.approx(1.0, abs=0.05)


def test_kernels_that_wait_for_the_device_are_measured(suite, tmp_path, monkeypatch):
    waiting = {"topk-1": "nvidia-h200", "topk-2": "amd-mi300x", "topk-3": "nvidia-h200"}
    for run, key in waiting.items():
        (tmp_path / "runs" / run).mkdir(parents=True)
        packed = gzip.compress(json.dumps({"hardware_key": key, "target": "topk"}).encode())
        (tmp_path / "runs" / run / "queue.json.gz").write_bytes(packed)
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    (part,) = (p for p in suite.parts(tmp_path / "out", "nvidia-h200", 30.0) if p.name.startswith("queue-"))
    files = [tmp_path / "out" / "queues" / f"{run}.json" for run in ("topk-1", "topk-3")]
    assert part.name == "queue-topk"
    assert [word for word in part.argv if word.endswith(".json")] == [str(file) for file in files]
    assert all(json.loads(file.read_text())["hardware_key"] == "nvidia-h200" for file in files)


def test_a_tests_failure_is_told_before_time_runs_out(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "LEAST_S", 8.0)
    (tmp_path / "test_both.py").write_text(
        "import time\ndef test_fails(): assert 2 + 2 == 5\ndef test_hangs(): time.sleep(600)\n"
    )
    argv = (sys.executable, "-m", "pytest", "-p", "failures_at_once", "-c", "/dev/null", str(tmp_path))
    assert "stopped" in suite.run(suite.Part("tests", 1.0, argv), tmp_path, 8.0)
    assert "assert (2 + 2) == 5" in (tmp_path / "tests.log").read_text()


def test_a_machine_without_that_gpu_is_told_so(tmp_path):
    done = subprocess.run(
        [ROOT / "scripts" / "gpu-suite", tmp_path, "--hardware", "no-such-gpu"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "no such GPU" in done.stderr
    assert "doctor" in done.stderr
