"""Questions that are answered from outside: the mailbox that waits, and the desk where they are answered."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from kernelevolve.errors import UsageError
from kernelevolve.llm.desk import Desk
from kernelevolve.llm.mailbox import Mailbox
from kernelevolve.runs import Runs
from kernelevolve.schema import CallFailed, ModelRequest, Reply
from kernelevolve.store import SqlStore, UnknownRunError
from kernelevolve.testing.records import a_run_spec, an_event

SPEC = a_run_spec()
RUN = SPEC.run


def question(step: int = 0, attempt: int = 0) -> ModelRequest:
    return ModelRequest(
        step=step, attempt=attempt, model="agent", system="You write kernels.", prompt=f"Brief {step}.",
        max_output_tokens=1000,
    )  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    found = Runs(tmp_path / "runs")
    with SqlStore.open(found.database) as store:
        store.create_run(SPEC)
    return found


@pytest.fixture
def store(runs):
    with SqlStore.open(runs.database) as opened:
        yield opened


@pytest.fixture
def desk(runs, store):
    return Desk(runs, store, RUN)


def test_an_answer_reaches_who_asked(runs, store, desk):
    mailbox = Mailbox(runs, RUN)
    with ThreadPoolExecutor(2) as lanes:
        asked = [lanes.submit(mailbox.complete, question(step)) for step in (0, 1)]
        while len(desk.briefs()) < 2:
            time.sleep(0.02)
        desk.answer("1", "the second")
        desk.skip("0.0", "no idea")
        skipped, replied = (future.result(timeout=10) for future in asked)
    mailbox.close()
    assert isinstance(skipped, CallFailed)
    assert (skipped.reason, skipped.message) == ("skipped", "no idea")
    assert isinstance(replied, Reply)
    assert (replied.text, replied.stop, replied.usage.cost_usd) == ("the second", "end", 0.0)
    assert desk.briefs() == ()


def test_a_question_that_nobody_answers_stays_open_and_is_answered_in_the_next_sitting(runs, desk):
    mailbox = Mailbox(runs, RUN)
    with ThreadPoolExecutor(1) as lanes:
        asked = lanes.submit(mailbox.complete, question())
        while not desk.briefs():
            time.sleep(0.02)
        mailbox.close()
        with pytest.raises(CancelledError):
            asked.result(timeout=10)
    desk.answer("0", "late, but not too late")
    again = Mailbox(runs, RUN)
    found = again.complete(question())
    again.close()
    assert isinstance(found, Reply)
    assert found.text == "late, but not too late"


def test_one_process_at_a_time_waits_for_answers(runs, desk):
    assert desk.standing() == "stopped"
    mailbox = Mailbox(runs, RUN)
    assert desk.standing() == "searching"
    with pytest.raises(UsageError, match="is being searched by another process"):
        Mailbox(runs, RUN)
    mailbox.close()
    assert desk.standing() == "stopped"


def test_a_process_that_is_killed_waits_no_more(runs, desk):
    code = f"""
from pathlib import Path
from kernelevolve.llm.mailbox import Mailbox
from kernelevolve.runs import Runs
kept = Mailbox(Runs(Path({str(runs.folder)!r})), {RUN!r})
print("there", flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"there\n"
        assert desk.standing() == "searching"
        process.kill()
        process.wait()
    assert desk.standing() == "stopped"


def test_a_run_that_came_to_its_end_hands_out_nothing_and_takes_no_answer(desk, store):
    store.add_question(RUN, question())
    store.add_event(RUN, an_event("finished", detail="budget"))
    store.add_event(RUN, an_event("certified"))
    assert desk.standing() == "ended"
    assert (desk.briefs(), desk.take()) == ((), None)
    with pytest.raises(UsageError, match="has ended"):
        desk.answer("0", "kernel")


def test_a_sitting_that_ran_out_of_time_leaves_its_briefs_open(desk, store):
    store.add_question(RUN, question())
    store.add_event(RUN, an_event("finished", detail="time"))
    store.add_event(RUN, an_event("refused"))
    assert desk.standing() == "stopped"
    desk.answer("0", "kernel")


# --- handing out ---


def test_a_brief_is_handed_out_once(desk, store):
    for step in (3, 4):
        store.add_question(RUN, question(step))
    taken = [desk.take() for _ in range(3)]
    assert [brief and brief.id for brief in taken] == ["3.0", "4.0", None]
    assert [brief.id for brief in desk.briefs() if brief.claimed_at] == ["3.0", "4.0"]


def test_many_who_ask_at_once_are_set_to_different_work(runs, desk, store):
    for step in range(8):
        store.add_question(RUN, question(step))
    start = threading.Barrier(8)

    def ask(_):
        start.wait()
        return desk.take().id

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(ask, range(8))) == [f"{step}.0" for step in range(8)]


def test_a_claim_lapses_after_half_an_hour(runs, desk, store):
    store.add_question(RUN, question())
    assert desk.take() is not None
    long_ago = (datetime.now(UTC) - timedelta(minutes=31)).isoformat()
    runs.claims_path(RUN).write_text(json.dumps({"at": {"0.0": long_ago}}))
    assert desk.take() is not None
    assert desk.take() is None


def test_whoever_insists_gets_what_was_handed_out_longest_ago(desk, store):
    for step in (0, 1):
        store.add_question(RUN, question(step))
    taken = [desk.take(again=True).id for _ in range(4)]
    assert taken == ["0.0", "1.0", "0.0", "1.0"]


def test_claims_that_a_crash_cut_off_count_as_none(runs, desk, store):
    store.add_question(RUN, question())
    desk.take()
    runs.claims_path(RUN).write_text('{"at": {"0.0": "20')
    assert desk.take() is not None


def test_the_time_that_an_answer_took_is_kept(runs, desk, store):
    store.add_question(RUN, question())
    a_minute_ago = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    runs.claims_path(RUN).write_text(json.dumps({"at": {"0.0": a_minute_ago}}))
    desk.answer("0", "kernel")
    assert 60 <= store.find_answer(RUN, 0, 0).seconds < 70


# --- bad input ---


@pytest.mark.parametrize(
    ("brief", "message"),
    [
        ("7", "has no brief 7"),
        ("0.1", "has no brief 0.1"),
        ("1", "brief 1 of run .* is closed"),
        ("first", "'first' names no brief"),
        ("0.", "'0.' names no brief"),
        ("-1", "'-1' names no brief"),
    ],
)
def test_an_answer_to_a_brief_that_is_not_open_is_refused(brief, message, desk, store):
    for step in (0, 1):
        store.add_question(RUN, question(step))
    desk.answer("1", "kernel")
    with pytest.raises(UsageError, match=message):
        desk.answer(brief, "kernel")
    with pytest.raises(UsageError, match=message):
        desk.skip(brief)


def test_an_empty_answer_is_none(desk, store):
    store.add_question(RUN, question())
    with pytest.raises(UsageError, match="empty"):
        desk.answer("0", " \n")
    assert len(desk.briefs()) == 1


def test_the_desk_of_an_unknown_run_leaves_no_folder(runs, store):
    with pytest.raises(UnknownRunError):
        Desk(runs, store, "nobody")
    assert not (runs.folder / "nobody").exists()
