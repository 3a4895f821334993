"""A recorded run can be lived through again without models or machines, and nobody notices a difference."""

import json
import subprocess

import pytest
from searching import by_tunables, candidates, landscape, stored
from talking import a_kernel, by_number, in_step, talk, talking_settings
from test_asking import WRITES, Silent, asks, measured, mixed
from test_resume import PowerCut, cut_at, everything

from kernelevolve import recording
from kernelevolve.catalog import Catalog
from kernelevolve.errors import NotRecordedError, UsageError
from kernelevolve.policies.base import Plan
from kernelevolve.runs import Runs
from kernelevolve.search import Session
from kernelevolve.store import SqlStore
from kernelevolve.testing.dialogue import a_reply
from kernelevolve.testing.scripted_client import ScriptedClient


def ignore(progress):
    """A listener that isn't interested."""


@pytest.fixture
def settings_for(tmp_path, cache_dir, tiny_target_folder):
    def made(base="here", **changes):
        return talking_settings(tmp_path / base, cache_dir, tiny_target_folder, **changes)

    return made


@pytest.fixture
def recorded(settings_for, tmp_path, monkeypatch):
    """Make a run, and then forget all that answered in it; the run, and what was recorded."""

    def make(answer=mixed, *, stepwise=False, **changes):
        landscape(monkeypatch, by_tunables if changes.get("proposer") == "tuner" else by_number)
        talk(monkeypatch, ScriptedClient(answer))
        settings = settings_for("original", **{"evals": 9, "lanes": 3, "workers": 2, "policy": "greedy", **changes})
        session = Session.start(settings, "tiny")
        result = session.run(ignore, in_step(session) if stepwise else None)
        return settings, result, keep(settings, result.run, tmp_path / "run.jsonl", monkeypatch)

    return make


def keep(settings, run, path, monkeypatch):
    with SqlStore.open(Runs(settings.runs).database, read_only=True) as store:
        recording.write(store, run, path)
    monkeypatch.setattr("kernelevolve.outside.EXECUTORS", Catalog("executors", {}))
    monkeypatch.setattr("kernelevolve.outside.Switchboard", None)
    monkeypatch.setattr(subprocess, "Popen", None)
    return path


def arrivals(settings, run):
    with SqlStore.open(Runs(settings.runs).database, read_only=True) as store:
        return store.arrivals(run)


@pytest.mark.parametrize("proposer", ["scripted", "tuner"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_replayed_run_is_the_same_run(proposer, workers, recorded, settings_for, monkeypatch):
    settings, whole, path = recorded(proposer=proposer, workers=workers)
    again = settings_for("again")
    session = Session.replay(again, recording.read(path))
    result = session.run(ignore)
    assert everything(stored(again, result.run)) == everything(stored(settings, whole.run))
    assert arrivals(again, result.run) == arrivals(settings, whole.run)
    assert asks(again, result.run) == asks(settings, whole.run)
    assert (result.best, result.evaluated, result.failed, result.stopped) == (
        whole.best, whole.evaluated, whole.failed, whole.stopped,
    )  # fmt: skip
    assert result.run != whole.run


def test_a_recording_of_a_replay_says_the_same(recorded, settings_for, tmp_path, monkeypatch):
    _, _, path = recorded()
    result = Session.replay(settings_for("again"), recording.read(path)).run(ignore)
    twice = keep(settings_for("again"), result.run, tmp_path / "twice.jsonl", monkeypatch)
    first, second = recording.read(path), recording.read(twice)
    assert (first.asks, first.arrivals, first.stopped) == (second.asks, second.arrivals, second.stopped)


def test_a_replay_that_is_cut_off_goes_on_as_if_it_had_not_been(recorded, settings_for, monkeypatch):
    settings, whole, path = recorded()
    expected = everything(stored(settings, whole.run))
    found = recording.read(path)
    for write in range(3, 400, 9):
        again = settings_for(str(write))
        session = Session.replay(again, found)
        try:
            with monkeypatch.context() as patch:
                cut_at(patch, write, WRITES)
                session.run(ignore)
            break
        except PowerCut:
            resumed = Session.resume(again, session.spec.run, found).run(ignore)
        assert everything(stored(again, session.spec.run)) == expected
        assert (resumed.best, resumed.evaluated) == (whole.best, whole.evaluated)
    assert write > 30


def test_what_was_taken_over_from_an_earlier_run_is_taken_over_again(recorded, settings_for, tmp_path, monkeypatch):
    landscape(monkeypatch, measured)
    talk(monkeypatch, ScriptedClient(a_kernel))
    settings = settings_for("original", evals=4)
    Session.start(settings, "tiny").run(ignore)
    whole = Session.start(settings_for("original", evals=6), "tiny").run(ignore)
    path = keep(settings, whole.run, tmp_path / "run.jsonl", monkeypatch)
    result = Session.replay(settings_for("again"), recording.read(path)).run(ignore)
    assert everything(stored(settings_for("again"), result.run)) == everything(stored(settings, whole.run))


def test_a_run_that_a_clock_ended_ends_at_the_same_place(recorded, settings_for, tmp_path, monkeypatch):
    landscape(monkeypatch, by_number)
    talk(monkeypatch, Silent(answers=4))
    settings = settings_for("original", evals=50, minutes=0.01, lanes=2, model=("mailbox:me",))
    whole = Session.start(settings, "tiny").run(ignore)
    assert (whole.stopped, whole.evaluated) == ("time", 4)
    path = keep(settings, whole.run, tmp_path / "run.jsonl", monkeypatch)
    again = settings_for("again")
    result = Session.replay(again, recording.read(path)).run(ignore)
    assert (result.stopped, result.evaluated) == ("time", 4)
    assert everything(stored(again, result.run)) == everything(stored(settings, whole.run))


# --- it fails where it would do otherwise ---


def test_a_question_in_other_words_is_an_error_that_names_them(recorded, settings_for, monkeypatch):
    _, _, path = recorded()
    monkeypatch.setattr("talking.SYSTEM", "Write fast kernels.")
    with pytest.raises(NotRecordedError, match=r"step 0, attempt 0.*system had 'Write kernels\.'") as caught:
        Session.replay(settings_for("again"), recording.read(path)).run(ignore)
    assert caught.value.exit_code == 2


def test_another_plan_is_an_error(recorded, settings_for, monkeypatch):
    _, _, path = recorded()
    monkeypatch.setattr("kernelevolve.policies.greedy.Greedy.ask", lambda _: Plan("draft"))
    with pytest.raises(NotRecordedError, match=r"step \d was to be a rewrite of \w+, and is a draft"):
        Session.replay(settings_for("again"), recording.read(path)).run(ignore)


def test_a_candidate_that_was_not_judged_is_an_error(recorded, settings_for, monkeypatch):
    _, _, path = recorded()
    monkeypatch.setattr("talking.source", lambda number: f"// {number}\nTVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);")
    with pytest.raises(NotRecordedError, match="was never judged"):
        Session.replay(settings_for("again"), recording.read(path)).run(ignore)


def test_a_run_is_gone_on_with_by_the_recording_that_it_began_with(recorded, settings_for, tmp_path):
    _, _, path = recorded()
    found = recording.read(path)
    again = settings_for("again")
    run = Session.replay(again, found).spec.run
    other = recording.Recording(
        found.spec.model_copy(update={"seed": 9}), found.calibration, found.asks, found.arrivals, found.stopped
    )
    with pytest.raises(UsageError, match="doesn't replay this recording"):
        Session.resume(again, run, other)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: "", "no recording"),
        (lambda text: "{}", "first line"),
        (lambda text: "no json", "no recording, or a damaged one"),
        (lambda text: text.rsplit("\n", 2)[0], "its end is missing"),
        (lambda text: text.replace("static const int", "static const  int"), "was changed"),
        (lambda text: text.replace('"asked":0', '"asked":70'), "damaged"),
    ],
)
def test_a_damaged_recording_is_called_one(damage, said, recorded):
    _, _, path = recorded()
    path.write_text(damage(path.read_text()))
    with pytest.raises(UsageError, match=said):
        recording.read(path)


def test_a_recording_keeps_what_many_share_once(recorded):
    _, _, path = recorded(lambda request: a_reply(f"kernel {request.step}"), evals=20)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    objects = [line["object"] for line in lines if "object" in line]
    assert len(objects) == len(set(objects))
    found = recording.read(path)
    whole = sum(len(ask.brief.model_dump_json()) for ask in found.asks.values())
    assert path.stat().st_size < whole / 2


def test_a_run_that_has_not_ended_can_not_be_recorded(settings_for, tmp_path, monkeypatch):
    landscape(monkeypatch, by_number)
    talk(monkeypatch, ScriptedClient(a_kernel))
    settings = settings_for()
    run = Session.start(settings, "tiny").spec.run
    with pytest.raises(UsageError, match="has not ended"):
        keep(settings, run, tmp_path / "run.jsonl", monkeypatch)
    assert candidates(stored(settings, run)) == []
