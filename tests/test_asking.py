"""Questions to models and evaluations run side by side, and nothing that was answered or measured is lost."""

import threading
from collections import Counter
from concurrent.futures import CancelledError

import pytest
from searching import candidates, landscape, stored
from talking import InStep, a_kernel, by_number, in_step, number_of, source, talk, talking_settings
from test_resume import PowerCut, cut_at, everything

from kernelevolve.errors import UsageError
from kernelevolve.policies.base import Plan
from kernelevolve.runs import Runs
from kernelevolve.schema import Duplicate, Failed, NoKernel, Passed, Reused
from kernelevolve.search import Session
from kernelevolve.store import SqlStore
from kernelevolve.testing.dialogue import a_reply, no_reply
from kernelevolve.testing.records import a_failed, a_measurement, a_passed
from kernelevolve.testing.scripted_client import ScriptedClient

PATIENCE_S = 30


def ignore(progress):
    """A listener that isn't interested."""


@pytest.fixture
def settings_for(tmp_path, cache_dir, tiny_target_folder):
    def made(base="here", **changes):
        return talking_settings(tmp_path / base, cache_dir, tiny_target_folder, **changes)

    return made


def searched(settings, listen=ignore, *, stepwise=True):
    session = Session.start(settings, "tiny")
    result = session.run(listen, in_step(session) if stepwise else None)
    return result, stored(settings, result.run)


def asks(settings, run):
    with SqlStore.open(Runs(settings.runs).database, read_only=True) as store:
        return store.asks(run)


def paid(settings, run):
    """Step and attempt of every stored answer."""
    return [(e.request.step, e.request.attempt) for ask in asks(settings, run) for e in ask.exchanges]


# --- side by side ---


class Crowd:
    """Answers nobody before so many ask at the same time."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=PATIENCE_S)

    def complete(self, request):
        self.barrier.wait()
        return a_kernel(request)

    def close(self):
        self.barrier.abort()


def test_as_many_questions_are_under_way_as_there_are_lanes(settings_for, monkeypatch):
    landscape(monkeypatch, by_number)
    talk(monkeypatch, Crowd(8))
    heard = []
    settings = settings_for(lanes=8, workers=8, evals=16)
    result, _ = searched(settings, heard.append, stepwise=False)
    assert (result.evaluated, result.failed) == (16, 0)
    assert max(progress.asked for progress in heard) == 8


def test_a_judge_does_not_wait_for_answers_nor_an_answer_for_judges(settings_for, monkeypatch):
    judged, answered = threading.Event(), threading.Event()

    def answer(request):
        if request.step == 1:  # the slow one
            assert judged.wait(PATIENCE_S)
            answered.set()
        return a_kernel(request)

    def speedup(job):
        if number_of(job.candidate.files) == 0:
            judged.set()
            assert answered.wait(PATIENCE_S)
        return 1.0

    landscape(monkeypatch, speedup)
    talk(monkeypatch, ScriptedClient(answer))
    assert searched(settings_for(evals=4, workers=2), stepwise=False)[0].evaluated == 4


def test_nothing_more_is_asked_while_candidates_wait_for_a_judge(settings_for, monkeypatch):
    go = threading.Event()
    client = ScriptedClient(a_kernel)

    def speedup(job):
        assert go.wait(PATIENCE_S)
        return 1.0

    landscape(monkeypatch, speedup)
    talk(monkeypatch, client)
    most = []

    def listen(progress):
        if progress.stage == "searching" and not progress.asked and not go.is_set():
            most.append(len(client.requests))
            go.set()

    assert searched(settings_for(evals=20, workers=1, lanes=4), listen, stepwise=False)[0].evaluated == 20
    assert most == [5]  # one before the judge, one in the queue, and the three that were under way by then


def test_what_is_under_way_is_never_more_than_the_budget(settings_for, monkeypatch):
    client = ScriptedClient(a_kernel)
    landscape(monkeypatch, by_number)
    talk(monkeypatch, client)
    result, run = searched(settings_for(evals=5, workers=4, lanes=4), stepwise=False)
    assert (result.evaluated, len(run.steps), len(client.requests)) == (5, 5, 5)


# --- what becomes of an answer ---


def test_an_answer_without_a_kernel_is_a_failed_evaluation_with_its_reason(settings_for, monkeypatch):
    script = [no_reply(), a_reply("I can't", stop="refusal"), a_reply("ker", stop="length"), "Sure!", "kernel 1"]
    jobs = landscape(monkeypatch, by_number)
    talk(monkeypatch, ScriptedClient(script))
    result, run = searched(settings_for(evals=5, lanes=1))
    assert (result.evaluated, result.failed) == (5, 4)
    said = [s.evaluation.diagnostics[0] for s in run.steps if isinstance(s.evaluation, Failed)]
    assert all(isinstance(finding, NoKernel) and finding.advice for finding in said)
    assert [finding.reason for finding in said] == ["no_reply", "refusal", "truncated", "prose"]
    assert [s.evaluation.stage for s in run.steps[:4]] == ["parse"] * 4
    assert all(job.candidate == run.steps[4].candidate for job in jobs)


def test_one_more_question_belongs_to_the_same_step(settings_for, monkeypatch):
    landscape(monkeypatch, by_number)
    client = ScriptedClient(lambda request: "again" if request.attempt < 2 else a_kernel(request))
    talk(monkeypatch, client)
    settings = settings_for(evals=3)
    result, run = searched(settings)
    assert (result.evaluated, len(client.requests)) == (3, 9)
    assert paid(settings, result.run) == [(step, attempt) for step in range(3) for attempt in range(3)]
    assert [number_of(c.files) for c in candidates(run)] == [2, 12, 22]


def test_a_kernel_that_was_there_before_is_not_built(settings_for, monkeypatch):
    jobs = landscape(monkeypatch, by_number)
    talk(monkeypatch, ScriptedClient(["kernel 1", "kernel 2", "kernel 1", "kernel 3"]))
    _, run = searched(settings_for(evals=4, lanes=1))
    again = run.steps[2]
    (finding,) = again.evaluation.diagnostics
    assert isinstance(finding, Duplicate)
    assert (finding.by, finding.of) == ("source", run.steps[0].candidate.digest)
    assert again.candidate is None
    assert again.proposal.files == {"main.cpp": source(1)}
    assert Counter(number_of(j.candidate.files) for j in jobs if j.purpose == "search") == {1: 1, 2: 1, 3: 1}


def test_what_an_earlier_run_measured_is_taken_over_and_confirmed_anew(settings_for, monkeypatch):
    jobs = landscape(monkeypatch, measured)
    talk(monkeypatch, ScriptedClient(a_kernel))
    _, first = searched(settings_for(evals=4))
    jobs.clear()
    result, second = searched(settings_for(evals=5))
    assert [number_of(j.candidate.files) for j in jobs if j.purpose == "search"] == [40]
    assert any(job.purpose == "confirm" for job in jobs)
    for old, new in zip(first.steps, second.steps, strict=False):
        note, *_ = new.evaluation.diagnostics
        assert isinstance(note, Reused)
        assert new.evaluation.measurements == old.evaluation.measurements
        assert (new.evaluation.candidate, new.evaluation.costs.total_s) == (new.candidate.digest, 0)
    assert result.evaluated == 5


@pytest.mark.parametrize("change", [{"threads": 2}, {"base": "elsewhere"}])
def test_what_was_measured_otherwise_or_elsewhere_is_not_taken_over(change, settings_for, monkeypatch):
    jobs = landscape(monkeypatch, measured)
    talk(monkeypatch, ScriptedClient(a_kernel))
    searched(settings_for(evals=3))
    jobs.clear()
    searched(settings_for(evals=3, **change))
    assert sum(job.purpose == "search" for job in jobs) == 3


def test_a_failure_of_an_earlier_run_is_tried_again(settings_for, monkeypatch):
    landscape(monkeypatch, lambda job: a_failed(job.candidate, "build", target=job.target.digest))
    talk(monkeypatch, ScriptedClient(a_kernel))
    searched(settings_for(evals=2))
    jobs = landscape(monkeypatch, by_number)
    assert searched(settings_for(evals=2))[0].failed == 0
    assert sum(job.purpose == "search" for job in jobs) == 2


def measured(job):
    """What a judge says who has timed every workload."""
    names = [workload.name for workload in job.target.select("cpu", "search")]
    found = tuple(a_measurement(by_number(job), workload=name) for name in names)
    return a_passed(job.candidate, purpose=job.purpose, target=job.target.digest, measurements=found)


# --- nothing is lost ---


class Unreadable(Exception):
    """The proposer breaks down over an answer."""


def test_an_answer_is_stored_before_it_is_read(settings_for, monkeypatch):
    landscape(monkeypatch, by_number)
    client = ScriptedClient(a_kernel)
    talk(monkeypatch, client)
    settings = settings_for(evals=3, lanes=1)
    session = Session.start(settings, "tiny")

    def breaks(*_):
        raise Unreadable

    with monkeypatch.context() as patch, pytest.raises(Unreadable):
        patch.setattr("talking.Asker.read", breaks)
        session.run(ignore)
    assert paid(settings, session.spec.run) == [(0, 0)]
    client.requests.clear()
    assert Session.resume(settings, session.spec.run).run(ignore).evaluated == 3
    assert [request.step for request in client.requests] == [1, 2]


WRITES = (
    "add_ask", "add_exchange", "add_proposal", "add_evaluation", "add_calibration", "add_event", "add_statistics",
)  # fmt: skip


def mixed(request):
    """Kernels, one that is there twice, prose, and second questions."""
    if request.step % 3 == 1 and request.attempt == 0:
        return a_reply("again")
    if request.step == 4:
        return a_reply("nothing comes to mind")
    return a_reply("kernel 0") if request.step == 5 else a_kernel(request)


@pytest.mark.parametrize(
    ("lanes", "workers", "writes"),
    [
        pytest.param(3, 2, range(4, 400, 14), id="here and there"),
        pytest.param(1, 1, range(400), id="everywhere", marks=pytest.mark.slow),
        pytest.param(3, 2, range(400), id="everywhere, several at once", marks=pytest.mark.slow),
    ],
)
def test_wherever_it_is_cut_off_no_answer_is_paid_twice(lanes, workers, writes, settings_for, monkeypatch):
    jobs = landscape(monkeypatch, by_number)
    client = ScriptedClient(mixed)
    talk(monkeypatch, client)
    ways = {"lanes": lanes, "workers": workers, "evals": 7, "policy": "greedy"}
    whole, expected = searched(settings_for("whole", **ways))
    told = paid(settings_for("whole"), whole.run)
    for write in writes:
        settings = settings_for(str(write), **ways)
        session = Session.start(settings, "tiny")
        try:
            with monkeypatch.context() as patch:
                cut_at(patch, write, WRITES)
                session.run(ignore, in_step(session))
            break
        except PowerCut:
            name = session.spec.run
            before, known = stored(settings, name), paid(settings, name)
            jobs.clear()
            client.requests.clear()
        session = Session.resume(settings, name)
        resumed = session.run(ignore, in_step(session))
        assert (resumed.evaluated, resumed.failed, resumed.stopped) == (7, whole.failed, "budget")
        assert everything(stored(settings, name)) == everything(expected)
        assert resumed.best == whole.best
        asked = [(request.step, request.attempt) for request in client.requests]
        assert not set(asked) & set(known)
        assert sorted(asked + known) == sorted(told)
        judged = {s.candidate.digest for s in before.steps if s.candidate and s.evaluation}
        assert not judged & {job.candidate.digest for job in jobs if job.purpose == "search"}
    assert write > 30  # to the last write


def test_an_open_brief_is_put_again_as_it_was_written(settings_for, monkeypatch, caplog):
    landscape(monkeypatch, by_number)
    talk(monkeypatch, Silent(answers=8))
    settings = settings_for(evals=14, lanes=2, policy="greedy")
    session = Session.start(settings, "tiny")

    def press(progress):
        if progress.asked == 2 and progress.evaluated >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.run(press)
    before = asks(settings, session.spec.run)
    open_ones = [ask for ask in before if not ask.exchanges]
    assert any(ask.brief.change == "rewrite" for ask in open_ones)
    client = ScriptedClient(a_kernel)
    talk(monkeypatch, client)
    monkeypatch.setattr("kernelevolve.policies.greedy.Greedy.ask", lambda _: Plan("draft"))
    result = Session.resume(settings, session.spec.run).run(ignore)
    assert result.evaluated == 14
    assert [ask.brief for ask in asks(settings, session.spec.run)][: len(before)] == [ask.brief for ask in before]
    assert {ask.number for ask in open_ones} <= {request.step for request in client.requests}
    assert "would plan something else today" in caplog.text


def test_what_was_answered_when_another_model_refused_for_good_is_kept(settings_for, monkeypatch):
    both = threading.Barrier(2, timeout=PATIENCE_S)

    def answer(request):
        if request.step == 0:
            both.wait()
            return a_kernel(request)
        both.wait()
        raise UsageError("the service refuses the key", remedy="check it")

    landscape(monkeypatch, by_number)
    talk(monkeypatch, ScriptedClient(answer))
    settings = settings_for(evals=3)
    session = Session.start(settings, "tiny")
    with pytest.raises(UsageError, match="refuses the key"):
        session.run(ignore, in_step_backwards(session))
    assert paid(settings, session.spec.run) == [(0, 0)]
    client = ScriptedClient(a_kernel)
    talk(monkeypatch, client)
    assert Session.resume(settings, session.spec.run).run(ignore).evaluated == 3
    assert sorted(request.step for request in client.requests) == [1, 2]


class Backwards(InStep):
    """Everything under way ends, and the highest step lands first."""

    def choose(self, flights):
        super().choose(flights)
        return max(flights, key=lambda future: getattr(flights[future], "step", -1))


def in_step_backwards(session):
    return Backwards(session._settings, session.spec, session._store)


class Silent:
    """Nobody answers any but the first steps; whoever waits is told when the client is closed."""

    def __init__(self, answers=0):
        self.answers = answers
        self.closed = threading.Event()

    def complete(self, request):
        if request.step < self.answers:
            return a_kernel(request)
        assert self.closed.wait(PATIENCE_S)
        raise CancelledError

    def close(self):
        self.closed.set()


def test_ctrl_c_gives_up_the_questions_and_the_run_goes_on_later(settings_for, monkeypatch):
    landscape(monkeypatch, by_number)
    client = Silent()
    talk(monkeypatch, client)
    settings = settings_for(evals=3)
    session = Session.start(settings, "tiny")

    def press(progress):
        if progress.asked == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.run(press)
    assert client.closed.is_set()
    assert [e.kind for e in stored(settings, session.spec.run).events] == ["started", "interrupted"]
    talk(monkeypatch, ScriptedClient(a_kernel))
    result = Session.resume(settings, session.spec.run).run(ignore)
    assert (result.evaluated, result.failed) == (3, 0)


# --- budgets and ends ---


def test_money_is_counted_at_its_worst_before_it_is_spent(settings_for, monkeypatch, tmp_path):
    table = tmp_path / "models.toml"
    table.write_text(
        '[models.test-model]\nprotocol = "openai-chat"\nbase_url = "http://127.0.0.1:9/v1"\n'
        "input_usd_per_mtok = 0.0\noutput_usd_per_mtok = 1000.0\n"  # a question may cost a dollar, and costs 0.002
    )
    landscape(monkeypatch, by_number)
    client = ScriptedClient(a_kernel)
    talk(monkeypatch, client)
    priced = {"model": ("test-model",), "models_file": table, "evals": 50, "lanes": 4}
    heard = []
    result, run = searched(settings_for(usd=1.5, **priced), heard.append)
    assert max(progress.asked for progress in heard) == 1
    assert (result.stopped, result.evaluated) == ("budget", 50)
    result, run = searched(settings_for("poor", usd=1.005, **priced))
    assert (result.stopped, result.evaluated) == ("usd", 3)
    assert len(run.steps) == 3
    settings = settings_for("poor")
    client.requests.clear()
    again = Session.resume(settings, result.run).run(ignore)
    assert (again.stopped, again.evaluated, client.requests) == ("usd", 3, [])


def test_a_budget_of_tokens_ends_a_search(settings_for, monkeypatch):
    landscape(monkeypatch, by_number)
    talk(monkeypatch, ScriptedClient(a_kernel))  # 1200 tokens a reply
    result, _ = searched(settings_for(tokens=5000, evals=50))
    assert (result.stopped, result.evaluated) == ("tokens", 4)


def test_a_price_that_nobody_knows_makes_a_budget_of_money_impossible(settings_for, monkeypatch):
    talk(monkeypatch, Silent())
    settings = settings_for(usd=1.0)
    with pytest.raises(UsageError, match="price of test-model isn't known"):
        Session.start(settings, "tiny")
    assert not settings.runs.exists()


def test_a_budget_of_device_time_ends_a_search(settings_for, monkeypatch):
    def speedup(job):
        costs = Passed.model_fields["costs"].default.model_copy(update={"total_s": 2.0})
        return a_failed(job.candidate, "check", target=job.target.digest, purpose=job.purpose, costs=costs)

    landscape(monkeypatch, speedup)
    talk(monkeypatch, ScriptedClient(a_kernel))
    result, run = searched(settings_for(device_seconds=9.0, evals=50, lanes=1))
    spent = sum(step.evaluation.costs.total_s for step in run.steps)
    assert (result.stopped, spent) == ("device_seconds", 8.0)


def test_a_goal_that_is_reached_ends_a_search(settings_for, monkeypatch):
    landscape(monkeypatch, lambda job: 1.0 + number_of(job.candidate.files) / 100)
    talk(monkeypatch, ScriptedClient(a_kernel))
    result, run = searched(settings_for(target_speedup=1.4, evals=50, lanes=1))
    assert result.stopped == "speedup"
    assert result.best.evaluation.fitness >= 1.4
    assert all(step.evaluation is not None for step in run.steps)
    assert len(run.steps) < 10
    again = Session.resume(settings_for(), result.run).run(ignore)
    assert (again.stopped, again.evaluated) == ("speedup", result.evaluated)


def test_a_search_that_finds_nothing_better_may_end_early(settings_for, monkeypatch):
    landscape(monkeypatch, lambda job: 1.0)
    talk(monkeypatch, ScriptedClient(a_kernel))
    result, _ = searched(settings_for(stall=5, evals=50, lanes=1))
    assert result.stopped == "stall"
    assert 5 <= result.evaluated <= 7


def test_a_model_that_nobody_can_ask_is_said_before_anything_is_written(settings_for, monkeypatch):
    settings = settings_for(model=("gpt-nonsense",), proposer="model")
    with pytest.raises(UsageError, match="gpt-nonsense"):
        Session.start(settings, "tiny")
    settings = settings_for(model=(), proposer="model")
    with pytest.raises(UsageError, match="needs a model"):
        Session.start(settings, "tiny")
    assert not settings.runs.exists()
