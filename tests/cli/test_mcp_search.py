"""Whole searches through the MCP server, with the real judge: driven by a client, stopped, killed, gone on with."""

import time

import anyio
import pytest
from mcp import Client
from mcp_clients import ask, http_server, said
from searching import QUICKLY, SLOW_BASELINE, environment, kernel, some_settings, stored, variant

pytestmark = pytest.mark.slow

FENCED = "Each row on its own.\n\n```cpp\n{}```\n"


@pytest.fixture
def settings(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    """A target on which a right kernel wins; the commands that the server starts find it."""
    folder = variant(tiny_target_folder, tmp_path, "sure", {"baselines.py": SLOW_BASELINE})
    found = some_settings(tmp_path, cache_dir, folder, evals=2)
    for name, value in environment(found).items():
        monkeypatch.setenv(name, value)
    return found


def test_one_candidate_is_judged_outside_any_run(settings):
    right, wrong, prose = ask(
        settings,
        *(
            ("evaluate", {"target": "tiny", "files": {"kernel.cpp": text}, "workloads": ["cpu-16x512"]})
            for text in (kernel(QUICKLY), kernel("to[0] = 1;"), "I'd rather not.")
        ),
    )
    assert right["outcome"] == "passed"
    assert 1 < right["low"] <= right["speedup"] <= right["high"]
    assert [m["workload"] for m in right["measurements"]] == ["cpu-16x512"]
    assert (wrong["outcome"], wrong["stage"]) == ("failed", "check")
    assert wrong["findings"][0]["kind"] == "numeric"
    assert wrong["findings"][0]["details"]["output"] == "out"
    assert (prose["stage"], prose["candidate"]) == ("parse", None)


def test_a_client_drives_a_search_to_its_end(settings):
    """The seed is judged without a question; then one answer holds a kernel, and all others none."""

    async def drive(address):
        async with Client(address) as client:
            run = (await said(client, "start_search", target="tiny", evals=3))["run"]
            answers = [FENCED.format(kernel(QUICKLY))]
            while (brief := await said(client, "next_brief", run=run, wait_seconds=60))["standing"] != "ended":
                answer = answers.pop() if answers else "I'd rather not."
                await said(client, "submit_candidate", run=run, brief=brief["brief"], answer=answer)
            steps = [await said(client, "read_evaluation", run=run, step=step) for step in range(3)]
            mine = next(step["step"] for step in steps if step["idea"].startswith("Each row"))
            return run, brief, steps, mine, await said(client, "lineage", run=run, step=mine)

    with http_server(settings) as server:
        run, last, steps, mine, line = anyio.run(drive, server.address)
    assert last["brief"] is None
    assert [step["state"] for step in steps] == ["judged"] * 3
    assert steps[mine]["evaluation"]["outcome"] == "passed"
    (none,) = [step for step in steps if step["step"] not in {0, mine}]
    assert (none["evaluation"]["stage"], none["evaluation"]["candidate"]) == ("parse", None)
    assert line["steps"][0]["candidate"] == steps[mine]["evaluation"]["candidate"]
    found = stored(settings, run)
    assert found.spec.proposer == "agent"
    assert any(QUICKLY in text for text in found.steps[mine].candidate.files.values())


@pytest.mark.parametrize("how", ["stop_search", "the server is killed"])
def test_a_search_that_is_cut_off_can_be_gone_on_with(how, settings):
    async def begin(address):
        async with Client(address) as client:
            run = (await said(client, "start_search", target="tiny", proposer="tuner", evals=30))["run"]
            await said(client, "read_evaluation", run=run, step=0, wait_seconds=60)
            if how == "stop_search":
                await said(client, "stop_search", run=run)
            return run

    with http_server(settings) as server:
        run = anyio.run(begin, server.address)
        if how != "stop_search":
            server.process.kill()
    until = time.monotonic() + 30
    while (last := stored(settings, run).events[-1].kind) != "interrupted" and time.monotonic() < until:
        time.sleep(0.1)
    assert last == "interrupted"
    evaluated = len(stored(settings, run).steps)
    assert 1 <= evaluated < 30

    async def go_on(address):
        async with Client(address) as client:
            await said(client, "resume_search", run=run)
            return await said(client, "read_evaluation", run=run, step=evaluated, wait_seconds=60)

    with http_server(settings) as server:
        assert anyio.run(go_on, server.address)["state"] == "judged"
    assert stored(settings, run).events[-1].kind == "interrupted"
