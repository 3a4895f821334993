"""Whole searches by served models, spoken to by every protocol: on good days and on bad ones."""

import json
import re
import sqlite3
import time
import zlib
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest
from searching import SCALE, command, kernel, some_settings, stored
from served import Books, Writer, at_home, in_haste, models_file, number_of, numbered, on_landscape, shown, turned

from kernelevolve.cli.app import main
from kernelevolve.runs import Runs
from kernelevolve.store import SqlStore
from kernelevolve.testing.model_server import UNRELIABLE, Breaks, Fails, ModelServer, Says, Stalls

PROTOCOLS = ("openai-chat", "openai-responses", "anthropic")
TARGETS = Path(__file__).parents[1] / "targets"
CANARY = "sk-canary-1f2e3d4c5b6a"


@pytest.fixture
def home(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    """A folder of the test's own, in which commands of this process work."""
    at_home(monkeypatch, tmp_path, cache=cache_dir, targets=tiny_target_folder)
    in_haste(monkeypatch)
    return tmp_path


def searched(capsys, *words):
    """What a search came to: its document, its run and its questions, and what it said meanwhile."""
    code = main(["search", *words, "--json"])
    heard = capsys.readouterr()
    document = json.loads(heard.out)
    assert code in (0, 4), heard.err
    with SqlStore.open(Runs(Path("runs")).database, read_only=True) as store:
        return document, store.run(document["run"]), store.asks(document["run"]), heard.err


@pytest.fixture
def known(tiny_target_folder):
    """The sources that the target ships."""
    return {path.read_text() for path in (tiny_target_folder / "tiny" / "seeds" / "cpp").iterdir()}


def by_number(job):
    return 1.0 + number_of(job.candidate.files) / 20


# --- good days ---


@pytest.mark.parametrize(
    "served",
    [*((p, s) for p in PROTOCOLS for s in ("yes", "refuses")), ("openai-chat", "ignores")],
    ids="-".join,
)
def test_a_search_builds_on_what_its_models_wrote(served, home, known, capsys, monkeypatch):
    protocol, streams = served
    jobs = on_landscape(monkeypatch, by_number)
    writer = Writer(kernel(SCALE), numbered)
    with ModelServer(writer, streams=streams) as server:
        document, run, asks, _ = searched(
            capsys, "tiny", "--model", f"{protocol}:fake@{server.base_url(protocol)}", "--evals", "14", "--lanes", "2"
        )
        asked = server.asked
    assert (document["verdict"], document["evaluated"], len(run.steps)) == ("certified", 14, 14)
    assert {a.protocol for a in asked} == {protocol}
    assert asked[-1].stream == (streams not in {"refuses", "ignores"})
    assert sum(e.answer.tries for ask in asks for e in ask.exchanges) == len(asked)
    by_model = [step for step in run.steps if step.proposal.model]
    assert {step.proposal.model for step in by_model} == {"fake"}
    assert all(step.proposal.usage.output_tokens > 0 for step in by_model)
    assert number_of(next(s.candidate for s in run.steps if s.candidate.digest == best_of(document)).files) >= 3
    assert {text for job in jobs for text in job.candidate.files.values()} <= writer.written | known
    assert any("const int number" in a.prompt for a in asked)
    assert "fake" in (home / "runs" / document["run"] / "report.md").read_text()


def best_of(document):
    return document["best"]["candidate"]


# --- bad days ---

NOT_THERE = "<<<<<<< SEARCH\nthis line is nowhere\n=======\nint x;\n>>>>>>> REPLACE\n"
FENCED_PROSE = "Idea: tiles.\n\n```cpp file=main.cpp\nFirst, the loop would be tiled. Then I'd vectorise it.\n```\n"
NO_FENCE = "Idea: tiles.\n\nvoid run() { /* rest unchanged */ }\nTVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);\n"
FAULTS = (*UNRELIABLE, Breaks(), Says(NOT_THERE), Says(FENCED_PROSE), Says(NO_FENCE))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_third_of_bad_replies_costs_what_it_costs_and_no_prose_is_judged(protocol, home, known, capsys, monkeypatch):
    jobs = on_landscape(monkeypatch, by_number)
    writer = Writer(kernel(SCALE), numbered)
    books = Books(lambda asked: writer(asked) if asked.number % 3 else FAULTS[asked.number // 3 % len(FAULTS)])
    with ModelServer(books) as server:
        file = models_file(home, server, protocol)
        document, run, asks, _ = searched(
            capsys, "tiny", "--model", "fake", "--models-file", str(file), "--evals", "52", "--lanes", "4",
            "--usd", "5", "--no-knowledge",
        )  # fmt: skip
        bill, requests = books.bill(server), len(server.asked)
    assert (document["evaluated"], document["stopped"]) == (52, "budget")
    assert set(FAULTS) <= set(books.said.values())

    exchanges = [exchange for ask in asks for exchange in ask.exchanges]
    assert sum(exchange.answer.tries for exchange in exchanges) == requests
    waste = document["waste"]
    total = waste["total"]
    assert (waste["proposals"], total["steps"], sum(total["ends"].values())) == (52, 52, 52)
    assert (total["calls"], waste["open_steps"]) == (len(exchanges), 0)
    assert (total["input_tokens"], total["output_tokens"]) == (bill.input_tokens, bill.output_tokens)
    assert total["usd"] == pytest.approx(bill.usd)
    for accounts in (waste["by_model"], waste["by_change"]):
        for key in ("steps", "calls", "input_tokens", "output_tokens"):
            assert sum(account[key] for account in accounts) == total[key]
        assert sum(account["usd"] for account in accounts) == pytest.approx(total["usd"])
        assert sum((Counter(account["ends"]) for account in accounts), Counter()) == total["ends"]

    assert not total["ends"].keys() & {"build", "load", "check", "time", "under_way"}
    assert total["ends"].keys() >= {"measured", "refusal", "truncated"}
    candidates = [step.candidate for step in run.steps if step.candidate] + [job.candidate for job in jobs]
    assert {text for candidate in candidates for text in candidate.files.values()} <= writer.written | known


def test_nobody_waits_longer_for_a_reply_than_was_said(tmp_path, cache_dir, tiny_target_folder, capsys, monkeypatch):
    at_home(monkeypatch, tmp_path, cache=cache_dir, targets=tiny_target_folder)
    monkeypatch.setenv("KERNELEVOLVE_REPLY_SECONDS", "0.5")
    on_landscape(monkeypatch, by_number)
    with ModelServer([Stalls("half a")]) as server:
        model = f"openai-chat:fake@{server.base_url('openai-chat')}"
        document, *_ = searched(capsys, "tiny", "--model", model, "--evals", "6")
    ends = document["waste"]["total"]["ends"]
    assert set(ends) == {"measured", "no_reply"}
    assert ends["no_reply"] >= 2


# --- the real thing ---


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_search_for_topk_is_judged_for_real(protocol, home, capsys, monkeypatch):
    monkeypatch.setenv("KERNELEVOLVE_TARGETS", str(TARGETS))
    writer = Writer((TARGETS / "topk" / "seeds" / "cpp" / "heap.cpp").read_text(), turned)
    books = Books(writer)
    with ModelServer(books) as server:
        file = models_file(home, server, protocol)
        document, run, _, heard = searched(
            capsys, "topk", "--model", "fake", "--models-file", str(file), "--evals", "10", "--lanes", "2", "--usd", "3"
        )
        bill = books.bill(server)
    assert document["evaluated"] == 10
    assert document["best"]["speedup"] > 0
    assert document["waste"]["total"]["usd"] == pytest.approx(bill.usd)
    passed = [step for step in run.steps if step.proposal.model and step.evaluation.outcome == "passed"]
    assert passed, heard
    assert {m.workload for m in passed[0].evaluation.measurements} >= {"cpu-f32-128x16384-k64"}
    assert any(shown(asked.prompt) for asked in server.asked)


# --- keys ---


def texts_under(*folders, since=0.0):
    """Whatever is written in files, and in databases within them, compressed or not."""
    for path in (path for folder in folders for path in folder.rglob("*")):
        if path.is_file() and path.stat().st_mtime >= since:
            yield path, path.read_bytes()
            if path.suffix == ".db":
                yield from ((path, value) for value in _cells(path))


def _cells(database):
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as open_:
        tables = [name for (name,) in open_.execute("select name from sqlite_master where type = 'table'")]
        for cell in (cell for table in tables for row in open_.execute(f"select * from {table}") for cell in row):
            if isinstance(cell, bytes):
                with suppress(zlib.error):
                    yield zlib.decompress(cell)
            yield str(cell).encode()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_key_is_sent_and_is_in_no_file_that_a_search_leaves(protocol, home, cache_dir, capsys, monkeypatch):
    began = time.time()
    on_landscape(monkeypatch, by_number)
    for vendor in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{vendor}_API_KEY", CANARY)
    writer = Writer(kernel(SCALE), numbered)

    def telltale(asked):
        """A service that repeats the key that it was given, in good replies and in bad ones."""
        if asked.number % 4 == 1:
            return Fails(400, f"{CANARY} may not do this")
        said = writer(asked).text
        return Says(said.replace("Idea: ", f"Idea: {CANARY}, "))

    with ModelServer(telltale, key=CANARY) as server:
        model = f"{protocol}:fake@{server.base_url(protocol)}"
        document, *_, heard = searched(
            capsys, "tiny", "--model", model, "--evals", "12", "--lanes", "2", "--record", "kept.jsonl",
            "--no-knowledge",
        )  # fmt: skip
    assert document["verdict"] == "certified"
    found = list(texts_under(home, since=began)) + list(texts_under(cache_dir, since=began))
    assert {path.name for path, _ in found} >= {"kernelevolve.db", "report.html", "report.md", "kept.jsonl"}
    assert any(b"*** may not do this" in text for _, text in found)
    assert any(b"Idea: ***, what number" in text for _, text in found)
    assert [path for path, text in found if CANARY.encode() in text] == []
    assert CANARY not in json.dumps(document) + heard


SPY = """
  static const std::string name = "_API_KEY";
  std::string keys;
  int seen = 1;
  for (char** one = environ; *one; ++one) keys += std::string(*one).find(name) < 20 ? *one : "";
  std::error_code none;
  for (const auto& process : std::filesystem::directory_iterator("/proc", none)) {
    std::ifstream file(process.path() / "environ");
    const std::string all((std::istreambuf_iterator<char>(file)), {});
    seen += !all.empty();
    if (all.find(name) != std::string::npos) keys += all.substr(all.find(name), 60);
  }
  TVM_FFI_THROW(RuntimeError) << "environments: " << seen << ", keys: [" << keys << "]";
"""
LOOKS = "#include <filesystem>\n#include <fstream>\n#include <iterator>\n#include <string>\n#include <unistd.h>"


@pytest.mark.slow
def test_a_candidate_finds_no_key_in_any_environment(home, cache_dir, tiny_target_folder):
    spy = f"Idea: look around.\n\n```cpp main.cpp\n{kernel(SPY, LOOKS)}\n```\n"
    with ModelServer([spy], key=CANARY) as server:
        settings = some_settings(
            home, cache_dir, tiny_target_folder, evals=2, model=(f"openai-chat:fake@{server.base_url('openai-chat')}",)
        )
        ended = command(settings, "search", "tiny", "--no-knowledge", "--json", OPENAI_API_KEY=CANARY)
    assert ended.returncode in (0, 4), ended.stderr
    steps = stored(settings, json.loads(ended.stdout)["run"]).steps
    (said,) = [d.message for s in steps if s.proposal.model for d in s.evaluation.diagnostics if "keys:" in d.message]
    assert re.search(r"environments: [1-9]\d*, keys: \[\]", said)
    assert [path for path, text in texts_under(home) if CANARY.encode() in text] == []
