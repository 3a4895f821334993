import json

import pytest
from example_run import retuned

from kernelevolve.cli import search as commands
from kernelevolve.cli.app import main
from kernelevolve.cli.ending import Ending, search_document
from kernelevolve.cli.evaluate import evaluation_document
from kernelevolve.cli.progress import Lines, line, panel
from kernelevolve.cli.runs import Finished
from kernelevolve.cli.waste import waste_of
from kernelevolve.runs import ReportPaths
from kernelevolve.schema import Parent, Run
from kernelevolve.search import Progress, SearchResult
from kernelevolve.testing.records import a_candidate, a_failed, a_passed, a_run_spec


def progress(evaluated: int, best=None, stage="searching") -> Progress:
    return Progress(
        stage=stage, evaluated=evaluated, failed=1, in_flight=2, budget=60, seconds=75.0, seconds_left=3700.0,
        best=best, best_label="main.cpp BLOCK=16",
    )  # fmt: skip


def result(best: Parent | None) -> SearchResult:
    return SearchResult(
        run="double-1", target="double", hardware_key="test-cpu-2c", evaluated=10, failed=2, best=best,
        baseline={"n1024": "eager", "n2048": "compiled", "n4096": "compiled"}, seconds=12.5, stopped="budget",
    )  # fmt: skip


def test_a_line_has_stage_best_budget_failures_and_time_left():
    said = line(progress(7, a_passed(speedup=1.5)))
    assert said == (
        "searching: 7/60 evaluated, 1 failed, 2 under way, "
        "best 1.50x [1.47, 1.53] main.cpp BLOCK=16, 1m 15s, 1h 01m left"
    )
    assert "nothing passed yet" in line(progress(0))


def test_off_a_terminal_a_line_comes_with_each_new_best_and_every_ten_evaluations():
    said: list[str] = []
    listen = Lines(said.append)
    seed = a_candidate()
    first, second = a_passed(seed), a_passed(retuned(seed, 16))
    for evaluated in range(30):
        listen(progress(evaluated, first if evaluated < 3 else second))
        listen(progress(evaluated, first if evaluated < 3 else second))
    assert [s.split()[1] for s in said] == ["0/60", "3/60", "13/60", "23/60"]


def test_the_live_display_can_be_drawn():
    from rich.console import Console

    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(panel(progress(7, a_passed(speedup=1.5))))
    assert "best 1.50x [1.47, 1.53] main.cpp BLOCK=16" in console.export_text()


def test_the_search_document_has_the_promised_keys(tmp_path):
    candidate = a_candidate()
    ending = Ending("certified", "published", tmp_path)
    found = search_document(result(Parent(candidate=candidate, evaluation=a_passed(candidate))), ending)
    assert found["best"].keys() == {"candidate", "speedup", "low", "high"}
    assert found["baseline"] == "compiled"
    assert found["entry"] == str(tmp_path)
    assert {"run", "target", "hardware", "evaluated", "failed", "verdict", "seconds"} <= found.keys()


def test_a_search_without_a_best_has_null_for_it():
    found = search_document(result(None), Ending("no_win", ""))
    assert (found["best"], found["entry"], found["verdict"]) == (None, None, "no_win")


def test_the_evaluation_document_of_a_failure_has_stage_and_findings():
    found = evaluation_document(a_failed(a_candidate()))
    assert (found["outcome"], found["stage"], found["measurements"]) == ("failed", "build", ())
    assert found["diagnostics"][0].kind == "compile"


@pytest.mark.parametrize(("evaluation", "code"), [(a_passed(), 0), (a_failed(a_candidate()), 3)])
def test_eval_ends_with_the_code_of_its_outcome(evaluation, code, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("kernelevolve.evaluate.evaluate_file", lambda *_: evaluation)
    assert main(["eval", "double", str(tmp_path / "main.cpp"), "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["outcome"] == evaluation.outcome
    assert main(["eval", "double", str(tmp_path / "main.cpp")]) == code
    assert evaluation.outcome in capsys.readouterr().out


def test_an_interrupted_search_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    class Interrupted:
        spec = a_run_spec(run="double-1")

        def run(self, listen):
            listen(progress(3))
            raise KeyboardInterrupt

    monkeypatch.setattr("kernelevolve.search.Session.start", lambda *_: Interrupted())
    assert main(["search", "double", "--runs", str(tmp_path)]) == commands.INTERRUPTED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"kernelevolve search --resume double-1 --runs {tmp_path}" in captured.err


def test_a_search_without_a_win_ends_with_its_own_code(monkeypatch, capsys, tmp_path):
    class Hopeless:
        spec = a_run_spec(run="double-1")

        def run(self, listen):
            return result(None)

    monkeypatch.setattr("kernelevolve.search.Session.start", lambda *_: Hopeless())
    ended = Finished(ReportPaths(tmp_path, tmp_path), waste_of(Run(spec=Hopeless.spec), ()), None)
    monkeypatch.setattr(commands, "finish", lambda *_: ended)
    assert main(["search", "double", "--json", "--runs", str(tmp_path)]) == commands.NO_WIN
    assert json.loads(capsys.readouterr().out)["verdict"] == "no_win"
