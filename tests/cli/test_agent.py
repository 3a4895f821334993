"""The commands `agent ...`, on a store that a search has left its questions in."""

import io
import json
import threading

import pytest

from kernelevolve.cli.app import main
from kernelevolve.llm.mailbox import Mailbox
from kernelevolve.runs import Runs
from kernelevolve.schema import Exchange, ModelRequest
from kernelevolve.store import SqlStore
from kernelevolve.testing.dialogue import a_reply
from kernelevolve.testing.landscape import a_brief
from kernelevolve.testing.records import a_candidate, a_passed, a_proposal, a_run_spec, an_event

SPEC = a_run_spec()
RUN = SPEC.run
PROMPT = "Write [bold]a kernel[/bold]: x[:rocket:] = 1;\n" + "a long line " * 40


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A run with two open briefs; the commands find it."""
    monkeypatch.setenv("KERNELEVOLVE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    with SqlStore.open(Runs(tmp_path / "runs").database) as opened:
        opened.create_run(SPEC)
        for step in (4, 5):
            opened.add_question(RUN, _question(step))
        yield opened


def _question(step):
    return ModelRequest(step=step, model="agent", system="The rules.", prompt=PROMPT, max_output_tokens=1000)


def run(*words):
    return main(["agent", *words])


def test_next_prints_the_brief_as_it_is(store, capfd):
    assert run("next", RUN) == 0
    said = capfd.readouterr()
    assert said.out == f"The rules.\n\n{PROMPT}".strip() + "\n"
    assert f"kernelevolve agent answer {RUN} 4.0 FILE" in said.err
    assert f"no search is running; the answer is taken up by: kernelevolve search --resume {RUN}" in said.err


def test_each_who_asks_gets_another_brief_until_none_is_left(store, capfd):
    found = []
    for _ in range(2):
        assert run("next", RUN, "--json") == 0
        found.append(json.loads(capfd.readouterr().out))
    assert [one["brief"] for one in found] == ["4.0", "5.0"]
    assert (found[0]["system"], found[0]["prompt"]) == ("The rules.", PROMPT)
    assert run("next", RUN, "--json") == 4
    said = capfd.readouterr()
    assert json.loads(said.out) == {"run": RUN, "brief": None, "standing": "stopped", "open": 2}
    assert "handed out already" in said.err
    assert run("next", RUN, "--all", "--json") == 0
    assert json.loads(capfd.readouterr().out)["brief"] == "4.0"


DOCUMENTS = {name: f'<document path="{name}.md">\n# All about {name}\n</document>' for name in ("tiling", "fusion")}


def test_who_remembers_the_answered_briefs_is_shown_no_document_twice(store, capfd):
    first = _question(0).model_copy(update={"prompt": DOCUMENTS["tiling"]})
    store.add_ask(RUN, 0, a_brief(0))
    store.add_exchange(RUN, 0, Exchange(request=first, answer=a_reply()))
    again = first.model_copy(update={"step": 6, "prompt": f"The task.\n\n{chr(10).join(DOCUMENTS.values())}\n"})
    store.add_question(RUN, again)
    for step in (4, 5):
        run("skip", RUN, str(step))
    capfd.readouterr()
    assert run("next", RUN, "--remember") == 0
    said = capfd.readouterr().out
    named = '<document path="tiling.md" as in brief 0.0 />'
    assert said == f"The rules are those of brief 0.0.\n\nThe task.\n\n{named}\n{DOCUMENTS['fusion']}\n"
    assert run("next", RUN, "--all") == 0
    assert capfd.readouterr().out == f"The rules.\n\n{again.prompt}"


def test_nor_the_task_the_machine_or_a_parents_source_but_what_is_new_of_them(store, capfd):
    task = "# The task: double\n\n```python\n# The answer is 2 x.\ndef reference(x): ...\n```\n\n"
    machine, source = "# The machine\n\nTwo cores.\n\n", "```cpp file=main.cpp\nint two = 2;\n```\n"
    prompt = "{}{}# The parent: it\n\n{} times as fast.\n\n{}\n# What is wanted: diff\n\nA change.\n"
    first = _question(0).model_copy(update={"prompt": prompt.format(task, machine, 1.5, source)})
    store.add_ask(RUN, 0, a_brief(0))
    store.add_exchange(RUN, 0, Exchange(request=first, answer=a_reply()))
    faster = machine.replace("Two", "Three")
    store.add_question(
        RUN, first.model_copy(update={"step": 6, "prompt": prompt.format(task, faster, 1.4, source + source)})
    )
    for step in (4, 5):
        run("skip", RUN, str(step))
    capfd.readouterr()
    assert run("next", RUN, "--remember") == 0
    named = "The file `main.cpp` is as in brief 0.0.\n"
    said = prompt.format("# The task: double\n\nAs in brief 0.0.\n\n", faster, 1.4, named + named)
    assert capfd.readouterr().out == f"The rules are those of brief 0.0.\n\n{said}"


def test_list_tells_what_is_open_and_handed_out(store, capfd):
    run("next", RUN)
    capfd.readouterr()
    assert run("list", RUN, "--json") == 0
    briefs = json.loads(capfd.readouterr().out)["briefs"]
    assert [(b["brief"], b["characters"], b["handed_out_at"] is None) for b in briefs] == [
        ("4.0", len(PROMPT), False),
        ("5.0", len(PROMPT), True),
    ]
    assert run("list", RUN) == 0
    assert "5.0" in capfd.readouterr().out


def test_an_answer_from_a_file_is_kept(store, tmp_path, capfd):
    file = tmp_path / "answer.md"
    file.write_text("```cpp\nvoid run() {}\n```\n")
    assert run("answer", RUN, "4", str(file)) == 0
    said = capfd.readouterr()
    assert "answered brief 4.0" in said.out
    assert f"kernelevolve search --resume {RUN}" in said.err
    assert store.find_answer(RUN, 4, 0).text == file.read_text()


def test_an_answer_from_standard_input_is_kept(store, monkeypatch, capfd):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a kernel")))
    assert run("answer", RUN, "5.0", "-", "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert found == {"run": RUN, "brief": "5.0", "outcome": "answered", "standing": "stopped"}
    assert store.find_answer(RUN, 5, 0).text == "a kernel"


def test_a_brief_can_be_passed_over(store, capfd):
    assert run("skip", RUN, "5", "--reason", "no idea") == 0
    assert "skipped brief 5.0" in capfd.readouterr().out
    assert store.find_answer(RUN, 5, 0).message == "no idea"


def test_next_waits_for_a_brief_that_is_not_there_yet(store, tmp_path, capfd):
    for step in (4, 5):
        run("skip", RUN, str(step))
    mailbox = Mailbox(Runs(tmp_path / "runs"), RUN)
    later = threading.Timer(0.3, store.add_question, (RUN, _question(6)))
    later.start()
    capfd.readouterr()
    assert run("next", RUN, "--wait", "30", "--json") == 0
    later.join()
    mailbox.close()
    assert json.loads(capfd.readouterr().out)["brief"] == "6.0"


def test_next_does_not_wait_for_a_run_that_has_ended(store, capfd):
    for step in (4, 5):
        run("skip", RUN, str(step))
    store.add_event(RUN, an_event("finished"))
    assert run("next", RUN, "--wait", "1000") == 4
    assert "has ended" in capfd.readouterr().err


def test_next_says_that_no_search_is_running(store, capfd):
    for step in (4, 5):
        run("skip", RUN, str(step))
    assert run("next", RUN) == 4
    assert f"no search is running; go on with: kernelevolve search --resume {RUN}" in capfd.readouterr().err


def test_status_tells_the_best_and_what_is_open(store, capfd):
    candidate = a_candidate()
    store.add_proposal(RUN, 0, a_proposal(candidate), candidate)
    store.add_evaluation(RUN, 0, a_passed(candidate, 1.5))
    assert run("status", RUN, "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["standing"], found["evaluated"], found["failed"], found["evals"]) == ("stopped", 1, 0, 10)
    assert found["open_briefs"] == ["4.0", "5.0"]
    assert found["best"]["low"] <= found["best"]["speedup"] <= found["best"]["high"]
    assert (found["best"]["candidate"], found["best"]["step"]) == (candidate.digest, 0)
    assert run("status", RUN) == 0
    said = capfd.readouterr().out
    assert "best: 1.50x" in said
    assert "open briefs: 4.0 5.0" in said


# --- bad input ---


@pytest.mark.parametrize(
    "words",
    [("next", "nobody"), ("list", "nobody"), ("answer", "nobody", "0", "-"), ("skip", "nobody", "0"), ("status", "no")],
    ids=" ".join,
)
def test_an_unknown_run_is_said_to_be_one(words, store, monkeypatch, capfd):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a kernel")))
    assert run(*words) == 2
    assert "remedy:" in capfd.readouterr().err


@pytest.mark.parametrize(("brief", "message"), [("9", "has no brief 9"), ("four", "names no brief")])
def test_an_unknown_brief_is_said_to_be_one(brief, message, store, monkeypatch, capfd):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a kernel")))
    assert run("answer", RUN, brief, "-") == 2
    said = capfd.readouterr().err
    assert message in said
    assert "remedy:" in said


def test_a_second_answer_is_refused_and_what_is_open_is_named(store, monkeypatch, capfd):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a kernel")))
    assert run("answer", RUN, "4", "-") == 0
    assert run("skip", RUN, "4", "--json") == 2
    error = json.loads(capfd.readouterr().out.partition("4.0\n")[2])["error"]
    assert "closed" in error["message"]
    assert error["remedy"] == "open now: 5.0"


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe\x00", b"x" * 1_000_001])
def test_a_file_that_holds_no_answer_is_refused(content, store, tmp_path, capfd):
    file = tmp_path / "answer"
    file.write_bytes(content)
    assert run("answer", RUN, "4", str(file)) == 2
    assert len(store.open_questions(RUN)) == 2


def test_a_missing_file_is_refused(store, capfd):
    assert run("answer", RUN, "4", "nowhere.cpp") == 2
    assert "nowhere.cpp" in capfd.readouterr().err


def test_without_any_run_no_store_is_made(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("KERNELEVOLVE_RUNS", str(tmp_path / "none"))
    assert run("skip", "a-run", "0") == 2
    assert not (tmp_path / "none").exists()
