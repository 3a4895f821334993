"""The script that holds estimates against measurements: with a made-up GPU, and without any."""

import importlib.util
import json
from pathlib import Path

import pytest
from searching import Landscape
from triaging import gpu_target, triage_landscape

from kernelevolve import hardware
from kernelevolve.catalog import Catalog
from kernelevolve.hardware.devices import known
from kernelevolve.testing.records import a_measurement, a_passed, a_triaged, an_estimate

SCRIPT = Path(__file__).parent.parent / "scripts" / "lib" / "bench_estimate.py"
CPU = hardware.detect()


@pytest.fixture
def bench(monkeypatch, tmp_path, cache_dir, tiny_target_folder):
    """The script's `main` in a folder of its own, given its words."""
    spec = importlib.util.spec_from_file_location("bench_estimate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERNELEVOLVE_CACHE", str(cache_dir))
    monkeypatch.setenv("KERNELEVOLVE_TARGETS", str(gpu_target(tiny_target_folder, tmp_path)))

    def run(*words):
        monkeypatch.setattr("sys.argv", ["bench-estimate", *words])
        return module.main()

    return run


def test_without_a_gpu_it_says_so_and_what_to_do(bench, monkeypatch, capsys):
    monkeypatch.setattr(hardware, "detect_all", lambda: (CPU,))
    assert bench("--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert "no GPU on this machine" in error["message"]
    assert "with a GPU" in error["remedy"]
    assert bench("--hardware", "nvidia-h200") == 2
    assert "no GPU nvidia-h200 on this machine" in capsys.readouterr().err


def test_it_reports_the_correlation_whatever_it_is(bench, monkeypatch, capsys):
    h200 = known("nvidia-h200").hardware
    monkeypatch.setattr(hardware, "detect_all", lambda: (CPU, h200))
    monkeypatch.setattr(hardware, "measured", lambda *_: h200)

    def looked_at(job):
        us = 10.0 * int(job.candidate.tunables["BLOCK"]) + int(job.candidate.tunables["WARPS"])
        estimate = an_estimate(us, workload="gpu-1024x4096")
        return a_triaged(job.candidate, us, target=job.target.digest, estimates=(estimate,))

    def measured(job):
        us = 1e6 / int(job.candidate.tunables["BLOCK"]) - int(job.candidate.tunables["WARPS"])
        timed = a_measurement(1.0, workload="gpu-1024x4096", candidate_us=us)
        return a_passed(job.candidate, target=job.target.digest, purpose=job.purpose, measurements=(timed,))

    triage_landscape(monkeypatch, looked_at)
    monkeypatch.setattr(Landscape, "answer", staticmethod(measured), raising=False)
    monkeypatch.setattr(Landscape, "jobs", [], raising=False)
    monkeypatch.setattr("kernelevolve.drain.EXECUTORS", Catalog("executors", {"local": "searching:Landscape"}))
    assert bench("--target", "tiny", "--candidates", "6", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    (row,) = document["targets"]
    assert (document["hardware"], row["target"], row["queued"], row["left"]) == ("nvidia-h200", "tiny", 6, 0)
    assert row["agreement"]["pairs"] == len(row["pairs"]) == 6
    assert row["agreement"]["spearman"] == pytest.approx(-1.0)
    assert row["agreement"]["kendall"] == pytest.approx(-1.0)
    assert bench("--target", "tiny", "--candidates", "6") == 0
    assert "tiny on nvidia-h200: rank correlation" in capsys.readouterr().out
