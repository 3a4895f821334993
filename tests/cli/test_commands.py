import json
import shutil
import subprocess
import sys

import pytest
from example_run import a_run, an_entry

from kernelevolve.cli.app import main
from kernelevolve.errors import KernelevolveError
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.store import SqlStore


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERNELEVOLVE_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("KERNELEVOLVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERNELEVOLVE_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def stored(tmp_path):
    """A run in the store."""
    run = a_run()
    name = run.spec.run
    with SqlStore.open(tmp_path / "runs" / "kernelevolve.db") as store:
        store.create_run(run.spec)
        store.add_calibration(name, run.calibration)
        for step in run.steps:
            store.add_proposal(name, step.number, step.proposal, step.candidate)
            for evaluation in (step.evaluation, *step.confirmations):
                if evaluation is not None:
                    store.add_evaluation(name, step.number, evaluation)
        for event in run.events:
            store.add_event(name, event)
    return run


@pytest.fixture
def published(tmp_path):
    """An entry in the registry, and the folder that holds it."""
    run = a_run()
    entry = an_entry(run.spec.run, run.steps[2].candidate)
    return entry, LocalRegistry(tmp_path / "registry").publish(entry)


def document(capsys):
    return json.loads(capsys.readouterr().out)


def test_help_documents_the_exit_codes(capsys):
    assert main(["--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "4 the search ended and nothing beats the baselines" in words


def test_an_unknown_option_is_a_usage_error(capsys):
    assert main(["runs", "list", "--colour"]) == 2
    assert capsys.readouterr().out == ""


def test_an_unknown_target_is_named_with_a_remedy(capsys):
    assert main(["targets", "show", "tokp"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "tokp" in captured.err
    assert "remedy:" in captured.err


def test_an_error_is_a_document_in_json_mode(capsys):
    assert main(["targets", "show", "tokp", "--json"]) == 2
    error = document(capsys)["error"]
    assert (error["kind"], error["exit_code"]) == ("TargetError", 2)
    assert "tokp" in error["message"]
    assert error["remedy"]


def test_a_wrong_setting_stops_every_command(capsys, monkeypatch):
    monkeypatch.setenv("KERNELEVOLVE_EVAL", "3")
    assert main(["runs", "list"]) == 2
    assert "KERNELEVOLVE_EVALS" in capsys.readouterr().err


def test_targets_are_listed(capsys):
    assert main(["targets", "list", "--json"]) == 0
    assert "topk" in [t["target"] for t in document(capsys)]


def test_a_new_target_is_written_and_shown(capsys, tmp_path):
    assert main(["targets", "new", "fresh"]) == 0
    assert (tmp_path / "targets" / "fresh" / "target.toml").is_file()
    capsys.readouterr()
    assert main(["targets", "show", "fresh", "--json"]) == 0
    assert document(capsys)["target"]["name"] == "fresh"
    assert main(["targets", "show", "fresh"]) == 0
    assert "baseline" in capsys.readouterr().out


def test_check_lists_the_mistakes_of_a_target_and_goes_on(capsys, tmp_path):
    main(["targets", "new", "fresh"])
    main(["targets", "new", "torn"])
    (tmp_path / "targets" / "torn" / "target.toml").write_text("name = \n")
    capsys.readouterr()
    assert main(["targets", "check", "--json"]) == 2
    found = {t["target"]: t["problems"] for t in document(capsys)["targets"]}
    assert found["fresh"] == []
    assert "target.toml" in found["torn"][0]


def test_hardware_is_listed_with_this_machine_first(capsys):
    assert main(["hardware", "list", "--json"]) == 0
    assert document(capsys)[0]["device"] == "cpu"
    assert main(["hardware"]) == 0
    assert "KEY" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_ceilings_are_shown_in_both_forms(capsys):
    assert main(["hardware", "ceilings", "--threads", "1", "--json"]) == 0
    assert document(capsys)["ceilings"]["threads"] == 1
    assert main(["hardware", "ceilings", "--threads", "1"]) == 0
    assert "512 MiB" in capsys.readouterr().out


def test_no_runs_is_not_an_error(capsys):
    assert main(["runs", "list", "--json"]) == 0
    assert document(capsys) == []
    assert main(["runs", "list"]) == 0


def test_a_run_is_listed_and_shown(capsys, stored):
    assert main(["runs", "list", "--json"]) == 0
    (line,) = document(capsys)
    assert (line["run"], line["evaluated"], line["failed"]) == (stored.spec.run, 4, 1)
    assert main(["runs", "list"]) == 0
    assert "4/10" in capsys.readouterr().out
    assert main(["runs", "show", stored.spec.run]) == 0
    shown = capsys.readouterr().out
    assert "1.50x [1.47, 1.53]" in shown
    assert "main.cpp BLOCK=16" in shown
    assert main(["runs", "show", stored.spec.run, "--json"]) == 0
    assert document(capsys)["spec"]["run"] == stored.spec.run


def test_the_best_so_far_of_runs_is_printed_side_by_side(capsys, stored):
    name = stored.spec.run
    assert main(["runs", "curve", name, name]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.count(name) == 1
    assert [line.split()[0] for line in lines] == ["1", "2", "4"]
    assert "1.50x [1.47, 1.53]" in lines[-1]
    assert main(["runs", "curve", name, "--json"]) == 0
    assert [point["evaluations"] for point in document(capsys)[name]] == [1, 2, 4]
    assert main(["runs", "curve", "double-2025"]) == 2


def test_an_unknown_run_is_a_usage_error(capsys, stored):
    assert main(["runs", "show", "double-2025"]) == 2
    assert "double-2025" in capsys.readouterr().err


def test_a_report_is_written_into_the_run_s_folder_or_where_it_is_told(capsys, stored, published, tmp_path):
    assert main(["runs", "report", stored.spec.run, "--json"]) == 0
    paths = document(capsys)
    assert paths["html"] == str(tmp_path / "runs" / stored.spec.run / "report.html")
    assert main(["runs", "report", stored.spec.run, "--out", str(tmp_path / "elsewhere")]) == 0
    page = (tmp_path / "elsewhere" / "report.md").read_text()
    assert page.startswith("# double on test-cpu-2c: 1.50x [1.47, 1.53] over the fastest baseline, certified")


def test_entries_are_listed_shown_and_verified(capsys, published):
    entry, _ = published
    assert main(["registry", "list", "--json"]) == 0
    assert [e["digest"] for e in document(capsys)] == [entry.digest]
    assert main(["registry", "list"]) == 0
    assert entry.digest[:12] in capsys.readouterr().out
    assert main(["registry", "show", entry.digest[:10]]) == 0
    assert "serves float32: N 1024" in capsys.readouterr().out
    assert main(["registry", "verify"]) == 0
    assert "1 entries, 0 damaged" in capsys.readouterr().out


def test_a_damaged_entry_fails_the_verification(capsys, published):
    _, folder = published
    (folder / "sources" / "main.cpp").write_text("// something else\n")
    assert main(["registry", "verify", "--json"]) == 1
    found = document(capsys)
    assert not found["ok"]
    assert "main.cpp" in found["entries"][0]["problem"]


def test_the_registry_option_names_another_folder(capsys, published, tmp_path):
    assert main(["registry", "list", "--registry", str(tmp_path / "other"), "--json"]) == 0
    assert document(capsys) == []


def test_the_doctor_says_what_is_here(capsys):
    code = main(["doctor", "--json"])
    found = document(capsys)
    names = {finding["name"] for finding in found["findings"]}
    assert {"cpu", "g++", "torch", "user namespaces", "landlock", "store", "registry", "concurrency"} <= names
    assert found["healthy"] == (code == 0)


def test_the_doctor_misses_the_compiler(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor"]) == 1
    assert "apt install g++" in capsys.readouterr().out


def test_the_doctor_warns_of_more_threads_than_cores(capsys, monkeypatch):
    monkeypatch.setenv("KERNELEVOLVE_THREADS", "4096")
    main(["doctor", "--json"])
    (found,) = [f for f in document(capsys)["findings"] if f["name"] == "concurrency"]
    assert found["state"] == "note"
    assert "4096 threads" in found["cost"]


def test_a_search_needs_a_target_or_a_run(capsys):
    assert main(["search"]) == 2
    assert main(["search", "topk", "--resume", "topk-1"]) == 2
    assert "--resume RUN" in capsys.readouterr().err


def test_every_error_keeps_its_exit_code(monkeypatch, capsys):
    def fail(*_):
        raise KernelevolveError("it broke", remedy="mend it")

    monkeypatch.setattr("kernelevolve.hardware.detect_all", fail)
    assert main(["hardware", "list"]) == 1
    assert "it broke" in capsys.readouterr().err


def test_the_command_is_a_program():
    code = "import sys; from kernelevolve.cli.app import main; sys.exit(main(['--version']))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0
    assert ended.stdout.strip()
