"""Searches with models as a command: shown before they cost anything, killed, resumed, recorded and replayed."""

import json
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from searching import by_tunables, environment, landscape, some_settings, stored
from talking import a_kernel, by_number, source, talk, talking_settings
from test_asking import asks
from test_resume import everything, only_run, until

from kernelevolve import recording
from kernelevolve.catalog import Catalog
from kernelevolve.cli.app import main
from kernelevolve.cli.ending import Ending
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.runs import Runs
from kernelevolve.search import Session
from kernelevolve.store import SqlStore
from kernelevolve.testing.model_server import UNRELIABLE, ModelServer, Says, Stalls, unreliable
from kernelevolve.testing.records import a_failed, a_measurement, a_passed
from kernelevolve.testing.scripted_client import ScriptedClient


def ignore(progress):
    """A listener that isn't interested."""


def writes_kernels(asked):
    return Says(f"Idea: number {asked.number}.\n\n```cpp main.cpp\n{source(asked.number)}\n```\n")


@pytest.fixture
def environ(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    """The folders of a test, for commands in this process."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "CACHE": cache_dir, "REGISTRY": tmp_path / "registry", "TARGETS": tiny_target_folder, "THREADS": 1,
    }.items():  # fmt: skip
        monkeypatch.setenv(f"KERNELEVOLVE_{name}", str(value))


def model_at(server):
    return f"openai-chat:fake@{server.base_url('openai-chat')}"


def document_of(capsys, *words):
    code = main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


# --- before it costs anything ---


def test_a_dry_run_shows_the_first_question_and_asks_nobody(environ, tmp_path, capsys):
    with ModelServer(writes_kernels) as server:
        assert main(["search", "tiny", "--model", model_at(server), "--dry-run"]) == 0
        shown = capsys.readouterr()
        code, document = document_of(capsys, "search", "tiny", "--model", model_at(server), "--dry-run")
        assert server.asked == []
    assert not (tmp_path / "runs").exists()
    assert code == 0
    assert document["request"]["prompt"] in shown.out
    assert "TVM_FFI_DLL_EXPORT_TYPED_FUNC" in shown.out
    assert "its price isn't known" in shown.err
    forecast = document["forecasts"]["fake"]
    assert 0 < forecast["tokens_low"] < forecast["tokens_high"]
    assert forecast["usd_low"] is None


def test_a_dry_run_of_the_tuner_has_nothing_to_show(environ, capsys):
    assert main(["search", "tiny", "--dry-run"]) == 0
    assert "asks no model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny", "--resume", "x"], "either a target or --resume"),
        (["tiny", "--replay", "x.jsonl"], "names its target itself"),
        (["--replay", "x.jsonl"], "can't read x.jsonl"),
        (["--resume", "x", "--dry-run"], "dry run is one of a new search"),
        (["tiny", "--model", "nobody-1"], "no model is called 'nobody-1'"),
        (["tiny", "--model", "openai-chat:m@http://127.0.0.1:9/v1", "--usd", "1"], "price of m isn't known"),
        (["tiny", "--proposer", "model"], "needs a model"),
        (["tiny", "--skills", "2"], "option --skills"),
        (["tiny", "--prompts", "nowhere", "--model", "openai-chat:m"], "there is no folder nowhere"),
    ],
)
def test_what_can_not_be_done_as_asked_is_said(words, said, environ, tmp_path, capsys):
    assert main(["search", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# --- models by the real protocol ---


@pytest.mark.parametrize("faults", [pytest.param(0.0), pytest.param(1 / 3, marks=pytest.mark.slow)])
def test_a_search_by_a_served_model_tells_what_it_cost(faults, environ, capsys, monkeypatch):
    landscape(monkeypatch, lambda job: by_number(job) if "main.cpp" in job.candidate.files else 0.5)
    known = [fault for fault in UNRELIABLE if not isinstance(fault, Stalls)]  # a stall is waited for
    with ModelServer(unreliable(writes_kernels, share=faults, seed=3, faults=known)) as server:
        code = main(
            ["search", "tiny", "--model", model_at(server), "--evals", "14", "--lanes", "3", "--no-knowledge", "--json"]
        )
        shown = capsys.readouterr()
    assert code in (0, 4), shown.err
    document = json.loads(shown.out)
    waste = document["waste"]
    assert document["evaluated"] == waste["proposals"] == sum(waste["total"]["ends"].values()) == 14
    assert {account["name"] for account in waste["by_model"]} == {"fake", "(no model)"}
    assert waste["total"]["calls"] <= len(server.asked)
    assert "may cost, if fake is asked for every kernel" in shown.err
    assert "at once: 2 evaluations, 3 questions to fake" in shown.err
    assert main(["runs", "show", document["run"]]) == 0
    told = capsys.readouterr().out
    assert re.search(r"fake +\d", told)
    assert "3 questions to fake" in told
    prose = [s for s in stored_here(document["run"]).steps if s.candidate and "Certainly" in str(s.candidate.files)]
    assert prose == []


def stored_here(run):
    with SqlStore.open(Runs(Path("runs")).database, read_only=True) as store:
        return store.run(run)


def begin(settings, log, *words):
    settings.runs.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("landscape_command.py")), str(log), "search", *words],
        env=environment(settings),
        cwd=settings.runs.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("kills", "evals"),
    [pytest.param(1, 6, id="once"), pytest.param(10, 30, id="ten times", marks=pytest.mark.slow)],
)
def test_kill_9_loses_no_answer_and_no_evaluation(kills, evals, tmp_path, cache_dir, tiny_target_folder):
    lanes, rng, log = 3, random.Random(kills), tmp_path / "jobs"
    with ModelServer(writes_kernels) as server:
        settings = some_settings(
            tmp_path, cache_dir, tiny_target_folder, evals=evals, lanes=lanes, workers=2, model=(model_at(server),),
            knowledge=False,
        )  # fmt: skip
        words = ["tiny"]
        for kill in range(kills):
            wanted = max((kill + 1) * evals // (kills + 1) + rng.randrange(2), evaluated(settings) + 1)
            process = begin(settings, log, *words)
            until(lambda wanted=wanted: reached(settings, wanted), process)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            words = ["--resume", only_run(settings).spec.run]
        cut = only_run(settings)
        process = begin(settings, log, *words, "--json")
        out, err = process.communicate(timeout=120)
        questions = len(server.asked)
    assert process.returncode in (0, 4), err
    document, run = json.loads(out), stored(settings, words[1])
    assert (document["evaluated"], len(run.steps)) == (evals, evals)
    assert everything(run)[: len(cut.steps) - lanes - 2] == everything(cut)[: len(cut.steps) - lanes - 2]
    answered = sum(len(ask.exchanges) for ask in asks(settings, run.spec.run))
    assert answered <= questions <= answered + kills * lanes  # beyond the stored ones, what was under way at a kill
    jobs = Counter(line for line in log.read_text().splitlines() if line.startswith("search "))
    assert len(jobs) == sum(step.candidate is not None for step in run.steps)
    assert sum(jobs.values()) <= len(jobs) + kills * 4  # before a judge and in the queue
    assert [e.kind for e in run.events].count("resumed") == kills


def evaluated(settings):
    run = only_run(settings)
    return 0 if run is None else sum(step.evaluation is not None for step in run.steps)


def reached(settings, steps):
    return evaluated(settings) >= steps


# --- recorded and replayed ---


@pytest.fixture
def recorded(tmp_path, cache_dir, tiny_target_folder, monkeypatch, request):
    """A run of so many evaluations on a landscape, and its recording."""
    landscape(monkeypatch, by_number)
    talk(monkeypatch, ScriptedClient(a_kernel))
    settings = talking_settings(
        tmp_path / "original", cache_dir, tiny_target_folder, evals=request.param, lanes=3, workers=2,
        policy="adaptive",
    )  # fmt: skip
    result = Session.start(settings, "tiny").run(ignore)
    with SqlStore.open(Runs(settings.runs).database, read_only=True) as store:
        recording.write(store, result.run, tmp_path / "run.jsonl")
    return tmp_path / "run.jsonl", stored(settings, result.run)


REPLAYS = """\
import sys
from kernelevolve import search
from kernelevolve.catalog import PROPOSERS, Catalog
search.PROPOSERS = Catalog("proposers", {**PROPOSERS.builtins, "scripted": "talking:Asker"})
from kernelevolve.cli.app import main
from kernelevolve.cli.ending import Ending
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("kills", "recorded"), [(1, 40), pytest.param(10, 200, marks=pytest.mark.slow)], indirect=["recorded"]
)
def test_a_replay_that_is_killed_ends_as_if_it_had_not_been(kills, recorded, tmp_path, cache_dir, tiny_target_folder):
    path, expected = recorded
    evals = len(expected.steps)
    settings = some_settings(tmp_path / "again", cache_dir, tmp_path / "no targets are needed")
    settings.runs.parent.mkdir()
    where = {**environment(settings), "PYTHONPATH": str(Path(__file__).parent), "PATH": "/nowhere"}
    (tmp_path / "no targets are needed").mkdir()
    resume = []
    for kill in range(kills + 1):
        before = evaluated(settings)
        words = [sys.executable, "-c", REPLAYS, "search", *resume, "--replay", str(path), "--json"]
        process = subprocess.Popen(
            words, env=where, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip
        if kill == kills:
            break
        wanted = max((kill + 1) * evals // (kills + 2), before + 1)
        until(lambda wanted=wanted: reached(settings, wanted), process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        resume = ["--resume", only_run(settings).spec.run]
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert (document["verdict"], document["evaluated"]) == ("replayed", evals)
    run = stored(settings, document["run"])
    assert everything(run) == everything(expected)
    kinds = [e.kind for e in run.events]
    assert kinds[-1] == "finished"
    # A replay may reach its end in the moment before it is killed.
    assert [kind for kind in kinds if kind != "finished"] == ["started", *["resumed"] * kills]


def test_where_the_best_turns_out_to_be_wrong_the_next_one_is_certified(environ, capsys, monkeypatch, tmp_path):
    seen, wrong = [], []

    def answer(job):
        digest = job.candidate.digest
        if job.purpose != "certify":
            seen.extend([] if digest in seen else [digest])
            return 1.5 * 1.3 ** seen.index(digest)
        if not wrong:
            wrong.append(digest)
            return a_failed(job.candidate, "check", purpose="certify", target=job.target.digest)
        found = tuple(a_measurement(2.0, workload=w, axes=job.target.workload(w).axes) for w in job.workloads)
        return a_passed(job.candidate, purpose="certify", target=job.target.digest, measurements=found)

    landscape(monkeypatch, answer)
    monkeypatch.setattr("kernelevolve.certify.EXECUTORS", Catalog("executors", {"local": "searching:Landscape"}))
    assert main(["search", "tiny", "--evals", "3"]) == 0
    assert "refused before it: " in capsys.readouterr().out
    (stored_entry,) = LocalRegistry(tmp_path / "registry").entries("tiny")
    assert wrong == [seen[2]]
    assert stored_entry.entry.candidate.digest == seen[1]
    run = only_run(some_settings(tmp_path, tmp_path, tmp_path))
    assert [e.kind for e in run.events][-2:] == ["refused", "certified"]


def test_a_search_of_the_tuner_is_recorded_and_replayed_by_the_command(environ, capsys, monkeypatch, tmp_path):
    landscape(monkeypatch, by_tunables)
    monkeypatch.setattr("kernelevolve.cli.search.certified", lambda *_: Ending("no_win", "not here"))
    code, first = document_of(capsys, "search", "tiny", "--evals", "3", "--record", "kept/run.jsonl")
    assert code == 4
    monkeypatch.setattr("kernelevolve.outside.EXECUTORS", None)
    code, again = document_of(capsys, "search", "--replay", "kept/run.jsonl", "--runs", "elsewhere")
    assert (code, again["verdict"], again["entry"]) == (0, "replayed", None)
    for key in ("best", "evaluated", "failed", "baseline", "stopped", "target", "hardware"):
        assert again[key] == first[key]
    assert not (tmp_path / "registry").exists()
