"""The tools of the MCP server, on a store that a search has left its questions in; and how the server is spoken to."""

import re
import socket

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp_clients import ask, http_server, said
from searching import argv, environment, some_settings

from kernelevolve.cli.app import main
from kernelevolve.cli.mcp.children import Searches
from kernelevolve.cli.mcp.options import ServerOptions
from kernelevolve.cli.mcp.server import listen, make_server
from kernelevolve.errors import UsageError
from kernelevolve.runs import Runs
from kernelevolve.schema import Lineage, ModelRequest
from kernelevolve.store import SqlStore
from kernelevolve.testing.records import a_candidate, a_failed, a_passed, a_proposal, a_run_spec, an_event

SPEC = a_run_spec()
RUN = SPEC.run
TOOLS = {
    "list_targets", "start_search", "resume_search", "stop_search", "next_brief", "submit_candidate", "skip_brief",
    "evaluate", "read_evaluation", "status", "best", "lineage", "runs", "knowledge_search", "knowledge_read",
}  # fmt: skip

KNOWLEDGE = {
    "index.md": """\
| document | operations | bottlenecks | hardware | languages | what it gives |
| --- | --- | --- | --- | --- | --- |
| [Contract](constraints/contract.md) | any | any | any | any | What a candidate may do. |
| [Selection](guidance/selection.md) | topk | compute | any | any | How the k largest are found without a sort. |
""",
    "constraints/contract.md": "# Contract\n\nCall nothing that you replace.\n",
    "guidance/selection.md": "# Selection\n\nFilter first.\n",
}


@pytest.fixture
def settings(tmp_path, cache_dir, tiny_target_folder):
    for path, text in KNOWLEDGE.items():
        file = tmp_path / "prompts" / "knowledge" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return some_settings(tmp_path, cache_dir, tiny_target_folder, prompts=tmp_path / "prompts")


@pytest.fixture
def store(settings):
    """A run with a line of two candidates, a failure, and two open briefs."""
    first = a_candidate()
    second = a_candidate(tunables={"BLOCK": 16}, lineage=Lineage(change="rewrite", parents=(first.digest,)))
    with SqlStore.open(Runs(settings.runs).database) as opened:
        opened.create_run(SPEC)
        for number, (candidate, said) in enumerate(
            [(first, a_passed(first, 1.2)), (second, a_passed(second, 1.5)), (None, a_failed(stage="parse"))]
        ):
            opened.add_proposal(RUN, number, a_proposal(candidate or first, idea=f"idea {number}"), candidate)
            opened.add_evaluation(RUN, number, said)
        for step in (3, 4):
            opened.add_question(RUN, _question(step))
        yield opened


def _question(step):
    return ModelRequest(step=step, model="agent", system="The rules.", prompt=f"Task {step}.", max_output_tokens=1000)


def test_every_tool_and_argument_says_what_it_is_for(settings):
    async def talk():
        async with Client(make_server(ServerOptions(settings, environment(settings)), Searches())) as client:
            return (await client.list_tools()).tools

    tools = anyio.run(talk)
    assert {tool.name for tool in tools} == TOOLS
    for tool in tools:
        assert tool.description
        assert tool.output_schema
        assert all(argument.get("description") for argument in tool.input_schema["properties"].values()), tool.name


def test_targets_and_runs_are_listed(settings, store):
    targets, runs = ask(settings, ("list_targets", {}), ("runs", {}))
    assert [target["name"] for target in targets["targets"]] == ["tiny"]
    assert targets["targets"][0]["languages"] == ["cpp"]
    assert [(run["run"], run["evaluated"]) for run in runs["runs"]] == [(RUN, 3)]


def test_without_any_run_the_list_is_empty(settings):
    assert ask(settings, ("runs", {})) == [{"runs": []}]


def test_briefs_are_taken_answered_and_passed_over(settings, store):
    calls = [("next_brief", {"run": RUN})] * 3 + [
        ("submit_candidate", {"run": RUN, "brief": "3.0", "answer": "```cpp\nvoid run();\n```"}),
        ("skip_brief", {"run": RUN, "brief": "4.0", "reason": "no idea"}),
        ("next_brief", {"run": RUN, "wait_seconds": 100}),
        ("read_evaluation", {"run": RUN, "step": 3}),
    ]
    first, second, none, submitted, skipped, nothing, step = ask(settings, *calls)
    assert (first["brief"], first["system"], first["prompt"]) == ("3.0", "The rules.", "Task 3.")
    assert (second["brief"], none["brief"]) == ("4.0", None)
    assert "again=true" in none["remark"]
    assert (submitted["brief"], submitted["standing"]) == ("3.0", "stopped")
    assert "resume_search" in submitted["remark"]
    assert skipped["brief"] == "4.0"
    assert (nothing["standing"], nothing["remark"]) == (
        "stopped", "no search is running: resume_search goes on with it",
    )  # fmt: skip
    assert step["state"] == "answered"
    assert store.find_answer(RUN, 3, 0).text == "```cpp\nvoid run();\n```"
    assert store.find_answer(RUN, 4, 0).message == "no idea"


def test_a_step_is_read_with_its_verdict_and_findings(settings, store):
    passed, failed, asked = ask(settings, *(("read_evaluation", {"run": RUN, "step": step}) for step in (1, 2, 3)))
    assert (passed["state"], passed["change"], passed["idea"]) == ("judged", "rewrite", "idea 1")
    verdict = passed["evaluation"]
    assert verdict["low"] <= verdict["speedup"] <= verdict["high"]
    assert verdict["measurements"][0]["workload"] == "n1024"
    assert (failed["evaluation"]["outcome"], failed["evaluation"]["stage"]) == ("failed", "parse")
    assert all(finding["advice"] for finding in failed["evaluation"]["findings"])
    assert (asked["state"], asked["brief"]) == ("asked", "3.0")


def test_status_best_and_lineage_agree(settings, store):
    store.add_event(RUN, an_event("refused", detail="it loses on two workloads"))
    calls = [(tool, {"run": RUN}) for tool in ("status", "best", "lineage")]
    status, best, line, of_first = ask(settings, *calls, ("lineage", {"run": RUN, "step": 0}))
    assert (status["evaluated"], status["failed"], status["standing"], status["open_briefs"]) == (3, 1, "ended", [])
    assert status["best"] == best["best"]
    assert (best["best"]["step"], best["tunables"], best["language"]) == (1, {"BLOCK": 16}, "cpp")
    assert best["files"] == a_candidate().files
    assert best["certification"] == "refused: it loses on two workloads"
    assert [one["step"] for one in line["steps"]] == [1, 0]
    assert line["steps"][0]["parents"] == [line["steps"][1]["candidate"]]
    assert [one["step"] for one in of_first["steps"]] == [0]


def test_knowledge_is_found_and_read(settings):
    found, document = ask(
        settings,
        ("knowledge_search", {"words": "largest elements without a sort", "target": "topk"}),
        ("knowledge_read", {"path": "guidance/selection.md"}),
    )
    assert found["documents"][0]["path"] == "guidance/selection.md"
    assert document["text"].startswith("# Selection")


# --- bad input ---


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("status", {"run": "nobody"}, "nobody"),
        ("next_brief", {"run": "nobody"}, "nobody"),
        ("resume_search", {"run": "nobody"}, "nobody"),
        ("stop_search", {"run": RUN}, "runs no search of"),
        ("submit_candidate", {"run": RUN, "brief": "9.0", "answer": "x"}, r"no brief 9\.0 \(open now: 3\.0, 4\.0\)"),
        ("submit_candidate", {"run": RUN, "brief": "3.0", "answer": " "}, "empty"),
        ("submit_candidate", {"run": RUN, "brief": "3.0"}, "answer"),
        ("skip_brief", {"run": RUN, "brief": "three"}, "names no brief"),
        ("read_evaluation", {"run": RUN, "step": 99}, "no step 99"),
        ("read_evaluation", {"run": RUN, "step": 1, "wait_seconds": 1e9}, "wait_seconds"),
        ("lineage", {"run": RUN, "step": 2}, "no candidate"),
        ("evaluate", {"target": "tiny", "files": {}}, "no candidate"),
        ("evaluate", {"target": "tiny", "files": {"../kernel.cpp": "x"}}, "can't be the name of a file"),
        ("knowledge_read", {"path": "../../secrets.md"}, "no document"),
        ("knowledge_search", {"words": "x", "language": "fortran"}, "fortran"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_remedy(tool, arguments, message, settings, store):
    (answer,) = ask(settings, (tool, arguments))
    assert re.search(message, answer)


def test_the_complaint_of_a_search_that_cannot_begin_reaches_the_client(settings):
    (answer,) = ask(settings, ("start_search", {"target": "tinny", "proposer": "tuner"}))
    assert re.search(r"no target is called 'tinny' .*\(did you mean tiny\?\)", answer)


def test_what_the_server_was_started_with_reaches_its_commands(settings):
    options = ServerOptions.load(None, runs=settings.runs, targets=settings.targets, prompts=settings.prompts)
    found = {name: options.environment.get(f"KERNELEVOLVE_{name.upper()}") for name in ("runs", "targets", "prompts")}
    assert found == {name: str(getattr(settings, name)) for name in found}


def test_without_the_library_the_command_says_how_to_get_it(monkeypatch, capfd):
    monkeypatch.setattr("kernelevolve.cli.mcp.command.find_spec", lambda name: None)
    assert main(["mcp"]) == 1
    assert "pip install 'kernelevolve[mcp]'" in capfd.readouterr().err


def test_a_port_in_use_is_said_to_be(settings, monkeypatch, capfd):
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="can't listen"):
            listen(port)
        assert main(["mcp", "--http", str(port)]) == 2
    assert "name another port" in capfd.readouterr().err


# --- on the wire ---


def test_a_client_on_standard_input_and_output(settings, store):
    async def talk():
        words = argv("mcp", "--runs", str(settings.runs))
        parameters = StdioServerParameters(command=words[0], args=words[1:], env=environment(settings))
        async with Client(stdio_client(parameters)) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            return names, await said(client, "status", run=RUN), await said(client, "next_brief", run=RUN)

    names, status, brief = anyio.run(talk)
    assert names == TOOLS
    assert status["best"]["step"] == 1
    assert brief["brief"] == "3.0"


def test_a_client_on_a_port_of_this_machine(settings, store):
    async def talk(address):
        async with Client(address) as client:
            return await said(client, "next_brief", run=RUN)

    with http_server(settings) as server:
        address = server.address
        assert anyio.run(talk, address)["brief"] == "3.0"
        # A page in a browser of this machine, under a name of its own that leads here, or from a site of its own.
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accept = {"Accept": "application/json, text/event-stream"}
        for strange in ({"Host": "rebound.example:80"}, {"Origin": "http://rebound.example"}):
            refused = httpx2.post(address, json=body, headers={**accept, **strange})
            assert refused.status_code in {403, 421}
        # Nobody listens for other machines.
        port = int(address.rsplit(":", 1)[1].partition("/")[0])
        other = socket.gethostbyname(socket.gethostname())
        if not other.startswith("127."):
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((other, port), timeout=5)
