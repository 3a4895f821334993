"""A search whose briefs are answered on the command line, judged on a made-up landscape."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from searching import QUICKLY, SCALE, environment, kernel, landscape, some_settings, stored

from kernelevolve.cli.app import main
from kernelevolve.runs import Runs
from kernelevolve.search import Session
from kernelevolve.store import SqlStore

PREPARED = {"agent#1": 1.5, "agent#2": 2.5}


@pytest.fixture
def settings(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    found = some_settings(tmp_path, cache_dir, tiny_target_folder, evals=3, proposer="agent", policy="greedy")
    for name, value in environment(found).items():
        monkeypatch.setenv(name, value)
    landscape(monkeypatch, lambda job: PREPARED.get(job.candidate.lineage.origin, 1.0))
    return found


def answer(run, text, tmp_path, capfd):
    """Take the next brief, answer it, and say what it asked."""
    capfd.readouterr()
    assert main(["agent", "next", run, "--wait", "30", "--json"]) == 0
    brief = json.loads(capfd.readouterr().out)
    file = tmp_path / "answer.md"
    file.write_text(text)
    assert main(["agent", "answer", run, brief["brief"], str(file)]) == 0
    return brief


def fenced(body):
    return f"Idea: another loop.\n\n```cpp file=main.cpp\n{kernel(body)}```\n"


def test_briefs_are_answered_on_the_command_line_until_the_budget_is_spent(settings, tmp_path, capfd):
    session = Session.start(settings, "tiny")
    run = session.spec.run
    with ThreadPoolExecutor(1) as pool:
        searching = pool.submit(session.run, lambda progress: None)
        briefs = [answer(run, fenced(body), tmp_path, capfd) for body in (SCALE, QUICKLY)]
        result = searching.result(timeout=60)
    assert [brief["brief"] for brief in briefs] == ["1.0", "2.0"]
    assert all("# The task: tiny" in brief["prompt"] for brief in briefs)
    assert (result.evaluated, result.stopped) == (3, "budget")
    steps = stored(settings, run).steps
    assert [step.proposal.idea for step in steps[1:]] == ["another loop."] * 2
    assert main(["agent", "next", run]) == 4
    assert "has ended" in capfd.readouterr().err
    assert main(["runs", "transcript", run]) == 0
    told = capfd.readouterr().out
    assert told.index("# The task: tiny") < told.index(kernel(SCALE)) < told.index("## Question 2.0 to agent")
    assert told.count("You write fast kernels.") == 1, "the system text is the same for all"
    assert "### Step 2, draft: agent#2\n\npassed, 2.5" in told


def test_an_answer_that_is_given_while_no_search_is_running_is_taken_up_by_the_next(settings, tmp_path, capfd):
    session = Session.start(settings.model_copy(update={"evals": 2}), "tiny")
    run = session.spec.run

    def give_up_once_asked(progress):
        with SqlStore.open(Runs(settings.runs).database, read_only=True) as store:
            if store.open_questions(run):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.run(give_up_once_asked)
    assert main(["agent", "status", run, "--json"]) == 0
    status = json.loads(capfd.readouterr().out)
    assert (status["standing"], status["open_briefs"]) == ("stopped", ["1.0"])

    answer(run, fenced(QUICKLY), tmp_path, capfd)
    assert f"kernelevolve search --resume {run}" in capfd.readouterr().err
    result = Session.resume(settings, run).run(lambda progress: None)
    assert (result.evaluated, result.stopped) == (2, "budget")
    assert stored(settings, run).steps[1].proposal.idea == "another loop."


def test_a_brief_that_is_passed_over_is_counted_and_the_search_goes_on(settings, capfd):
    session = Session.start(settings.model_copy(update={"evals": 2}), "tiny")
    run = session.spec.run
    with ThreadPoolExecutor(1) as pool:
        searching = pool.submit(session.run, lambda progress: None)
        assert main(["agent", "next", run, "--wait", "30"]) == 0
        assert main(["agent", "skip", run, "1", "--reason", "no idea"]) == 0
        result = searching.result(timeout=60)
    assert (result.evaluated, result.failed) == (2, 1)
    (finding,) = stored(settings, run).steps[1].evaluation.diagnostics
    assert finding.kind == "no_kernel"
    assert "no idea" in finding.message
