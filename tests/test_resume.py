"""A search that was cut off goes on as if it hadn't been."""

import ctypes
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest
from searching import (
    SCALE,
    SLOW_BASELINE,
    argv,
    by_tunables,
    candidates,
    command,
    environment,
    kernel,
    landscape,
    some_settings,
    stored,
    variant,
)

from kernelevolve.errors import StoreError, UsageError
from kernelevolve.hardware import detect
from kernelevolve.runs import Runs
from kernelevolve.search import Session
from kernelevolve.store import SqlStore
from kernelevolve.testing.executor_contract import descendants
from kernelevolve.testing.records import a_run_spec

EVALS = 5
PATIENCE_S = 120


def ignore(progress):
    """A listener that isn't interested."""


@pytest.fixture
def wide(tiny_target_folder, tmp_path):
    """A target with two families."""
    seeds = {
        "seeds/cpp/plain.cpp": kernel(SCALE, "// tunable A: 1 2 3 4 5\n// tunable B: 1 2 4 8"),
        "seeds/cpp/other.cpp": kernel(f"if (rows == 0) return; {SCALE}", "// tunable D: 2 3 5 7"),
    }
    return variant(tiny_target_folder, tmp_path, "wide", seeds)


class PowerCut(BaseException):
    """Nothing in the program knows of it."""


WRITES = ("add_ask", "add_proposal", "add_evaluation", "add_calibration", "add_event", "add_statistics")


def cut_at(monkeypatch, write, methods=WRITES):
    """Lose the power just before the store's write of that number (from 0)."""
    left = [write]

    def cut(method):
        real = getattr(SqlStore, method)

        def wrapped(*arguments):
            if left[0] == 0:
                raise PowerCut
            left[0] -= 1
            return real(*arguments)

        monkeypatch.setattr(SqlStore, method, wrapped)

    for method in methods:
        cut(method)


def everything(run):
    """A run without the times of its events."""
    return [(s.number, s.proposal, s.candidate, s.evaluation, s.confirmations) for s in run.steps]


# --- on a landscape: every point at which a search can be cut off ---


def test_wherever_it_is_cut_off_a_search_comes_to_the_same_end(tmp_path, cache_dir, wide, monkeypatch):
    jobs = landscape(monkeypatch, by_tunables)
    whole = Session.start(some_settings(tmp_path / "whole", cache_dir, wide, evals=EVALS), "tiny").run(ignore)
    expected = stored(some_settings(tmp_path / "whole", cache_dir, wide), whole.run)
    for write in range(400):
        settings = some_settings(tmp_path / str(write), cache_dir, wide, evals=EVALS)
        session = Session.start(settings, "tiny")
        try:
            with monkeypatch.context() as patch:
                cut_at(patch, write)
                session.run(ignore)
            break
        except PowerCut:
            before = stored(settings, session.spec.run)
            jobs.clear()
        resumed = Session.resume(settings, session.spec.run).run(ignore)
        after = stored(settings, session.spec.run)
        assert (resumed.evaluated, resumed.failed, resumed.stopped) == (EVALS, 0, "budget")
        assert everything(after) == everything(expected)
        assert resumed.best == whole.best
        judged = {s.candidate.digest for s in before.steps if s.evaluation is not None}
        assert not judged & {job.candidate.digest for job in jobs if job.purpose == "search"}
    assert write > 3 * EVALS  # every write was tried


def test_several_workers_leave_no_gap_when_cut_off(tmp_path, cache_dir, wide, monkeypatch):
    landscape(monkeypatch, by_tunables)
    for write in range(2, 14, 3):
        settings = some_settings(tmp_path / str(write), cache_dir, wide, evals=EVALS, workers=3)
        session = Session.start(settings, "tiny")
        with monkeypatch.context() as patch, pytest.raises(PowerCut):
            cut_at(patch, write)
            session.run(ignore)
        before = stored(settings, session.spec.run)
        assert Session.resume(settings, session.spec.run).run(ignore).evaluated == EVALS
        after = stored(settings, session.spec.run)
        assert [step.number for step in after.steps] == list(range(EVALS))
        assert all(step.evaluation is not None for step in after.steps)
        assert candidates(after)[: len(before.steps)] == candidates(before)


def test_a_finished_run_judges_nothing_again(tmp_path, cache_dir, wide, monkeypatch):
    jobs = landscape(monkeypatch, by_tunables)
    settings = some_settings(tmp_path, cache_dir, wide, evals=EVALS)
    first = Session.start(settings, "tiny").run(ignore)
    jobs.clear()
    again = Session.resume(settings, first.run).run(ignore)
    assert jobs == []
    assert (again.best, again.evaluated, again.stopped) == (first.best, first.evaluated, first.stopped)
    assert [e.kind for e in stored(settings, first.run).events] == ["started", "finished", "resumed", "finished"]


def test_a_step_that_came_in_late_is_not_looked_at_again(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    best_is_known = Event()

    def speedup(job):
        block = job.candidate.tunables["BLOCK"]
        if block == 16:
            assert best_is_known.wait(60)
        if job.purpose == "confirm":
            best_is_known.set()
        return {16: 1.2, 32: 1.4, 64: 1.1}[block]

    jobs = landscape(monkeypatch, speedup)
    settings = some_settings(tmp_path, cache_dir, tiny_target_folder, workers=2)
    first = Session.start(settings, "tiny").run(ignore)
    assert first.best.candidate.tunables == {"BLOCK": 32}
    jobs.clear()
    assert Session.resume(settings, first.run).run(ignore).best == first.best
    assert jobs == []


def test_todays_settings_do_not_change_a_run(tmp_path, cache_dir, wide, monkeypatch):
    landscape(monkeypatch, by_tunables)
    settings = some_settings(tmp_path, cache_dir, wide, evals=EVALS)
    session = Session.start(settings, "tiny")
    today = some_settings(tmp_path, cache_dir, wide, evals=2, seed=9, policy="random", proposer="tuner")
    assert Session.resume(today, session.spec.run).run(ignore).evaluated == EVALS


def test_the_minutes_of_a_run_are_those_of_one_sitting(tmp_path, cache_dir, wide, monkeypatch):
    landscape(monkeypatch, by_tunables)
    settings = some_settings(tmp_path, cache_dir, wide, evals=EVALS, minutes=1e-9)
    first = Session.start(settings, "tiny").run(ignore)
    assert (first.evaluated, first.stopped, first.best) == (0, "time", None)
    assert Session.resume(settings, first.run).run(ignore).stopped == "time"


def test_ctrl_c_is_written_down_and_the_run_goes_on_later(tmp_path, cache_dir, wide, monkeypatch):
    landscape(monkeypatch, by_tunables)
    settings = some_settings(tmp_path, cache_dir, wide, evals=EVALS)
    session = Session.start(settings, "tiny")

    def press(progress):
        if progress.evaluated == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.run(press)
    assert [e.kind for e in stored(settings, session.spec.run).events] == ["started", "interrupted"]
    assert Session.resume(settings, session.spec.run).run(ignore).evaluated == EVALS


def test_an_unknown_run_is_answered_with_close_names(tmp_path, cache_dir, wide, monkeypatch):
    landscape(monkeypatch, by_tunables)
    settings = some_settings(tmp_path, cache_dir, wide)
    name = Session.start(settings, "tiny").spec.run
    ended = command(settings, "search", "--resume", name[:-1], "--json")
    assert ended.returncode == 2
    assert name in json.loads(ended.stdout)["error"]["remedy"]
    assert name in ended.stderr


def test_a_run_of_another_machine_is_not_gone_on_with(tmp_path, cache_dir, wide):
    settings = some_settings(tmp_path, cache_dir, wide)
    far = detect().model_copy(update={"key": "another-cpu-64c", "aliases": ()})
    with SqlStore.open(Runs(settings.runs).database) as store:
        store.create_run(a_run_spec("tiny-1", hardware=far))
    with pytest.raises(UsageError, match="another-cpu-64c"):
        Session.resume(settings, "tiny-1")


def test_resuming_without_a_store_says_where_it_was_looked_for(tmp_path, cache_dir, wide):
    settings = some_settings(tmp_path, cache_dir, wide)
    with pytest.raises((StoreError, UsageError), match=str(settings.runs)):
        Session.resume(settings, "tiny-1")


# --- as a command, with kill -9 ---


@pytest.fixture
def orphans_are_ours():
    """Whatever loses its parent becomes a child of this process, so that it can be seen (and must be reaped)."""
    prctl, subreaper = ctypes.CDLL(None).prctl, 36
    prctl(subreaper, 1, 0, 0, 0)
    yield
    prctl(subreaper, 0, 0, 0, 0)


def begin(settings, *words):
    settings.runs.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        argv("search", *words),
        env=environment(settings),
        cwd=settings.runs.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(condition, process):
    """Wait until something holds; what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if process.poll() is not None:
            raise AssertionError(f"the search has ended: {process.communicate()}")
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def only_run(settings):
    """The run that is being made; None before there is one."""
    try:
        with SqlStore.open(Runs(settings.runs).database, read_only=True) as store:
            return next((store.run(s.run) for s in store.summaries()), None)
    except StoreError:
        return None


def calibrating(settings):
    """Whether a judge has begun to time the baselines."""
    run = only_run(settings)
    started = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants()]
    return run is not None and run.calibration is None and any(b"pyrunner" in words for words in started)


def in_an_evaluation(settings):
    run = only_run(settings)
    return run is not None and any(s.candidate and s.evaluation is None for s in run.steps)


def kill_9(process, before):
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    nothing_is_left(before)


def nothing_is_left(before):
    deadline = time.monotonic() + 20
    while descendants() - before and time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)
    left = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") for pid in descendants() - before]
    assert not left, "something outlived the search"


@pytest.fixture
def sure(tiny_target_folder, tmp_path):
    """A target on which every right kernel wins."""
    return variant(tiny_target_folder, tmp_path, "sure", {"baselines.py": SLOW_BASELINE})


def after_another(settings):
    """Whether this sitting has added an evaluation to the first one of the run."""
    run = only_run(settings)
    return run is not None and sum(s.evaluation is not None for s in run.steps) > 1


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param([in_an_evaluation], id="once"),
        pytest.param([calibrating, in_an_evaluation, after_another], id="thrice", marks=pytest.mark.slow),
    ],
)
def test_kill_9_costs_nothing_that_was_measured(moments, tmp_path, cache_dir, sure, orphans_are_ours):
    settings = some_settings(tmp_path, cache_dir, sure)
    before = descendants()
    words = ["tiny"]
    for moment in moments:
        process = begin(settings, *words)
        until(lambda moment=moment: moment(settings), process)
        kill_9(process, before)
        words = ["--resume", only_run(settings).spec.run]
    cut = only_run(settings)

    ended = command(settings, "search", *words, "--json")
    assert ended.returncode == 0, ended.stderr
    nothing_is_left(before)
    document = json.loads(ended.stdout)
    assert (document["run"], document["evaluated"], document["failed"]) == (words[1], 3, 0)
    assert document["verdict"] == "certified"
    run = stored(settings, words[1])
    assert [(s.number, s.evaluation.outcome) for s in run.steps] == [(0, "passed"), (1, "passed"), (2, "passed")]
    assert len({s.candidate.code for s in run.steps}) == 3
    for old, new in zip(cut.steps, run.steps, strict=False):
        assert old.evaluation in (None, new.evaluation)
        assert new.confirmations[: len(old.confirmations)] == old.confirmations
    resumed = ["resumed"] * len(moments)
    assert [e.kind for e in run.events] == ["started", *resumed, "finished", "certified"]


def test_ctrl_c_ends_with_130_and_a_word_on_how_to_go_on(tmp_path, cache_dir, sure, orphans_are_ours):
    settings = some_settings(tmp_path, cache_dir, sure)
    before = descendants()
    process = begin(settings, "tiny", "--json")
    until(lambda: in_an_evaluation(settings), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group hears it
    out, err = process.communicate(timeout=60)
    name = only_run(settings).spec.run
    assert process.returncode == 130
    assert out == ""
    assert f"kernelevolve search --resume {name} --runs {settings.runs}" in err
    assert "Traceback" not in err
    nothing_is_left(before)
    run = stored(settings, name)
    assert [e.kind for e in run.events] == ["started", "interrupted"]
    assert not any(s.evaluation for s in run.steps if s.evaluation and s.evaluation.outcome == "failed")
