"""One candidate before the judge: what `kernelevolve eval` says of it."""

import json
from pathlib import Path

import pytest
from searching import (
    QUICKLY,
    SCALE,
    SLOW_BASELINE,
    command,
    judge_here,
    kernel,
    landscape,
    some_settings,
    variant,
)

from kernelevolve.catalog import Catalog
from kernelevolve.cli.app import main
from kernelevolve.evaluate import evaluate_file
from kernelevolve.schema import Passed, Unsettled
from kernelevolve.testing.records import a_failed

MEASURED = {"workload", "candidate_us", "baseline_us", "speedup", "low", "high", "verdict"}
SAID = {"kind", "message", "advice"}


@pytest.fixture
def here(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    """Settings in the environment, and the judge in this process."""
    judge_here(monkeypatch)
    folder = variant(tiny_target_folder, tmp_path, "sure", {"baselines.py": SLOW_BASELINE})
    settings = some_settings(tmp_path, cache_dir, folder)
    for name in ("cache", "targets", "threads", "runs", "registry"):
        monkeypatch.setenv(f"KERNELEVOLVE_{name.upper()}", str(getattr(settings, name)))
    monkeypatch.chdir(tmp_path)
    return settings


def written(tmp_path, text, name="mine.cpp"):
    file = tmp_path / name
    file.write_text(text)
    return str(file)


def evaluated(capfd, *words):
    """Exit code and document of `eval tiny ... --json`; nothing else may be on standard output."""
    capfd.readouterr()
    code = main(["eval", "tiny", *words, "--json"])
    return code, json.loads(capfd.readouterr().out)


def test_a_right_kernel_passes_with_a_measurement_of_every_search_workload(here, tmp_path, capfd):
    code, found = evaluated(capfd, written(tmp_path, kernel(QUICKLY)))
    assert code == 0, found
    assert (found["outcome"], found["stage"]) == ("passed", None)
    assert [m["workload"] for m in found["measurements"]] == ["cpu-64x512", "cpu-16x512"]
    for measured in found["measurements"]:
        assert measured.keys() >= MEASURED
        assert measured["low"] <= measured["speedup"] <= measured["high"]
        assert measured["verdict"] == "faster"
    assert {d["kind"] for d in found["diagnostics"]} == {"profile"}
    assert all(d.keys() >= SAID for d in found["diagnostics"])


@pytest.mark.parametrize(("noisy_looks", "outcome"), [(1, "passed"), (2, "failed")])
def test_a_time_that_noise_has_hidden_is_measured_once_more(here, tmp_path, monkeypatch, noisy_looks, outcome):
    noise = Unsettled(message="lost in the noise", advice="measure on a quieter machine")

    def answer(job):
        if len(jobs) <= noisy_looks:
            return a_failed(job.candidate, "time", target=job.target.digest, diagnostics=(noise,))
        return 1.5

    jobs = landscape(monkeypatch, answer)
    monkeypatch.setattr("kernelevolve.evaluate.EXECUTORS", Catalog("executors", {"local": "searching:Landscape"}))
    found = evaluate_file(here, "tiny", [Path(written(tmp_path, kernel(QUICKLY)))])
    assert (found.outcome, len(jobs)) == (outcome, 2)


def test_only_the_workloads_that_were_named_are_timed(here, tmp_path, capfd):
    file = written(tmp_path, kernel(QUICKLY))
    code, found = evaluated(capfd, file, "--workload", "cpu-16x300", "--workload", "cpu-16x512")
    assert code == 0, found
    assert [m["workload"] for m in found["measurements"]] == ["cpu-16x300", "cpu-16x512"]


def test_a_kernel_of_several_files_is_judged(here, tmp_path, capfd):
    header = written(tmp_path, "inline float scaled(float a, float b) { return a * b; }\n", "scaled.h")
    body = SCALE.replace("from[i] * by[i % n]", "scaled(from[i], by[i % n])")
    main_file = written(tmp_path, kernel(body, '#include "scaled.h"'))
    code, found = evaluated(capfd, main_file, header, "--workload", "cpu-16x512")
    assert (code, found["outcome"]) == (0, "passed")


FAILURES = {
    "no entry point": ("int nothing;\n", "parse", "parse"),
    "syntax": (kernel("to[0] = ;"), "build", "compile"),
    "undefined function": (kernel(f"nowhere(); {SCALE}", "void nowhere();"), "build", "compile"),
    "crash while it is loaded": (kernel(SCALE, "#include <cstdlib>\nint early = (abort(), 0);"), "load", "crash"),
    "wrong number": (kernel(SCALE.replace("*by", "+by").replace("from[i] *", "from[i] +")), "check", "numeric"),
    "outputs left alone": (kernel(";"), "check", "numeric"),
    "crash": (kernel("*(volatile int*)0 = 1;"), "check", "crash"),
    "exit": (kernel("_Exit(0);", "#include <cstdlib>"), "check", "crash"),
    "exception": (kernel('TVM_FFI_THROW(ValueError) << "not today";'), "check", "raised"),
    "wrong later": (kernel(f"static int calls; if (++calls > 60) return; {SCALE}"), "time", "numeric"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_told_with_its_stage_and_advice(failure, here, tmp_path, capfd):
    source, stage, kind = FAILURES[failure]
    code, found = evaluated(capfd, written(tmp_path, source))
    assert code == 3
    assert (found["outcome"], found["stage"], found["measurements"]) == ("failed", stage, [])
    assert found["diagnostics"]
    assert found["diagnostics"][0]["kind"] == kind
    for said in found["diagnostics"]:
        assert said["message"]
        assert said["advice"]


def test_a_compile_error_points_into_the_file(here, tmp_path, capfd):
    source = kernel("to[0] = ;")
    _, found = evaluated(capfd, written(tmp_path, source))
    said = found["diagnostics"][0]
    assert said["file"] == "mine.cpp"
    assert "to[0] = ;" in source.splitlines()[said["line"] - 1]


@pytest.mark.slow
def test_a_kernel_that_hangs_is_ended(here, tmp_path, capfd):
    code, found = evaluated(capfd, written(tmp_path, kernel("for (volatile int i = 0;; i = i + 1);")))
    assert (code, found["stage"]) == (3, "check")
    assert (found["diagnostics"][0]["kind"], found["diagnostics"][0]["resource"]) == ("limit", "time")


def test_without_json_a_failure_is_told_in_words(here, tmp_path, capfd):
    assert main(["eval", "tiny", written(tmp_path, kernel(";"))]) == 3
    told = capfd.readouterr().out
    assert "failed at check" in told
    assert "numeric: " in told


def test_an_evaluation_is_a_value_to_a_program(here, tmp_path):
    file = tmp_path / "mine.cpp"
    file.write_text(kernel(QUICKLY))
    evaluation = evaluate_file(here, "tiny", [file], ["cpu-16x512"])
    assert isinstance(evaluation, Passed)
    assert evaluation.purpose == "eval"


def test_as_a_command_it_prints_the_document_and_nothing_else(tiny_target_folder, tmp_path, cache_dir):
    settings = some_settings(tmp_path, cache_dir, tiny_target_folder)
    noisy = kernel(f'puts("look at me"); {SCALE}', "#include <cstdio>")
    ended = command(settings, "eval", "tiny", written(tmp_path, noisy), "--workload", "cpu-16x512", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["outcome"] == "passed"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["missing.cpp"], "missing.cpp"),
        (["mine.cpp", "--workload", "cpu-17x512"], "cpu-16x512"),
        (["mine.cpp", "--language", "fortran"], "cpp"),
        (["mine.cpp", "--hardware", "abacus"], "abacus"),
        (["mine.cpp", "--threads", "0"], "--threads"),
    ],
)
def test_what_cannot_be_asked_for_is_a_usage_error(words, named, here, tmp_path, capfd):
    written(tmp_path, kernel(SCALE))
    code, found = evaluated(capfd, *words)
    assert (code, found["error"]["exit_code"]) == (2, 2)
    assert named in found["error"]["message"] + found["error"]["remedy"]
    assert found["error"]["remedy"]
