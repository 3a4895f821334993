"""Whatever is wrong with what the program is given, it says what, and what to do about it."""

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from searching import SCALE, Landscape, by_tunables, command, kernel, landscape, some_settings, stored, variant
from served import models_file, on_landscape

from kernelevolve.cli.app import main
from kernelevolve.errors import StoreError
from kernelevolve.runs import Runs
from kernelevolve.search import Session
from kernelevolve.store import SqlStore, sql
from kernelevolve.store.engine import make_engine
from kernelevolve.testing.model_server import ModelServer


@pytest.fixture
def settings(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    """Settings of the test's own, in the environment; searches ask a landscape."""
    made = some_settings(tmp_path, cache_dir, tiny_target_folder)
    for name in ("cache", "targets", "threads", "runs", "registry"):
        monkeypatch.setenv(f"KERNELEVOLVE_{name.upper()}", str(getattr(made, name)))
    monkeypatch.chdir(tmp_path)
    landscape(monkeypatch, by_tunables)
    return made


@pytest.fixture
def refused(capfd):
    """Run a command line that must fail: what it says, the same in words and in JSON."""

    def run(code, *words):
        capfd.readouterr()
        assert main([*words, "--json"]) == code
        said = capfd.readouterr()
        error = json.loads(said.out)["error"]
        assert error["exit_code"] == code
        assert error["remedy"]
        assert main(list(words)) == code
        told = capfd.readouterr()
        assert told.out == ""
        for heard in (said.err, told.err):
            assert f"error: {error['message']}" in heard
            assert f"remedy: {error['remedy']}" in heard
            assert "Traceback" not in heard
        return f"{error['message']} ({error['remedy']})"

    return run


# --- names ---


def test_an_unknown_target_is_answered_with_a_close_one(settings, refused):
    assert "did you mean tiny?" in refused(2, "search", "tinny")
    assert "did you mean tiny?" in refused(2, "eval", "tinny", "main.cpp")


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("policy", "best-of-n, greedy, islands"),
        ("proposer", "tuner"),
        ("language", "cpp"),
        ("hardware", "choose one of"),
    ],
)
def test_an_unknown_name_is_answered_with_those_there_are(option, remedy, settings, refused):
    said = refused(2, "search", "tiny", f"--{option}", "greedyy")
    assert "greedyy" in said
    assert remedy in said
    assert not settings.runs.exists()


@pytest.mark.parametrize("option", ["--targets", "--settings"])
def test_a_folder_or_file_that_is_not_there_is_named(option, settings, refused):
    assert "nowhere" in refused(2, "search", "tiny", option, "nowhere")


# --- settings ---


def test_an_unknown_setting_in_the_environment_is_an_error(settings, refused, monkeypatch):
    monkeypatch.setenv("KERNELEVOLVE_EVAL", "3")
    said = refused(2, "search", "tiny")
    assert "KERNELEVOLVE_EVAL:" in said
    assert "KERNELEVOLVE_EVALS" in said


def test_an_unknown_setting_in_the_file_is_an_error(settings, refused, tmp_path):
    (tmp_path / "kernelevolve.toml").write_text("evals = 3\npolizy = 'greedy'\n")
    said = refused(2, "search", "tiny")
    assert "kernelevolve.toml, key polizy" in said
    assert "did you mean policy?" in said


@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_a_budget_that_is_none_is_an_error(value, settings, refused, monkeypatch):
    monkeypatch.setenv("KERNELEVOLVE_EVALS", value)
    said = refused(2, "search", "tiny")
    assert "KERNELEVOLVE_EVALS" in said
    assert "total budget of evaluations" in said


# --- targets ---


@pytest.fixture
def torn(settings, refused, tiny_target_folder, tmp_path):
    """What a search of `tiny` says when a file of it is changed."""

    def run(file, change):
        path = tiny_target_folder / "tiny" / file
        folder = variant(tiny_target_folder, tmp_path, "torn", {file: change(path.read_text())})
        return refused(2, "search", "tiny", "--targets", str(folder))

    return run


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "tiny"', 'name = "tiny', "target.toml"),
        ("cost.operations", "cost.operatons", "cost.operatons"),
        ("n = 512 }", "m = 512 }", "workloads[0].axes"),
        ('axes = { rows = 64, n = 512 }, dtypes = { T = "float32" }', "axes = 5", "workloads[0].axes"),
    ],
)
def test_a_malformed_target_is_answered_with_file_and_key(old, new, named, torn):
    said = torn("target.toml", lambda toml: toml.replace(old, new, 1))
    assert "target.toml" in said
    assert named in said


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("reference.py", "def reference(x, factor)\n    return x\n", "reference.py"),
        ("baselines.py", "def eeger(x, factor, out):\n    pass\n", "eager"),
        ("inputs.py", "import no_such_package\n", "inputs.py"),
    ],
)
def test_wrong_python_of_a_target_is_named_too(file, text, named, torn):
    assert named in torn(file, lambda _: text)


# --- models ---

PROTOCOLS = ("openai-chat", "openai-responses", "anthropic")
WRONG = "sk-wrong-1f2e3d4c5b6a"


@pytest.fixture
def unkeyed(settings, tmp_path, monkeypatch):
    """Settings where no service's key is to be found."""
    for vendor in ("OPENAI", "ANTHROPIC"):
        for name in ("API_KEY", "AUTH_TOKEN", "BASE_URL"):
            monkeypatch.delenv(f"{vendor}_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    for name in ("CONFIG_DIR", "PROFILE"):
        monkeypatch.delenv(f"ANTHROPIC_{name}", raising=False)
    return settings


@pytest.mark.parametrize(("model", "key"), [("gpt-6-sol", "OPENAI_API_KEY"), ("claude-opus-5", "ANTHROPIC_API_KEY")])
def test_without_a_key_nothing_is_begun(model, key, unkeyed, refused):
    said = refused(2, "search", "tiny", "--model", model)
    assert f"no key for {model}" in said
    assert f"export {key}" in said
    assert not unkeyed.runs.exists()
    assert Landscape.jobs == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_with_a_wrong_key_nothing_is_begun_and_nothing_asked(protocol, unkeyed, refused, monkeypatch):
    for vendor in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{vendor}_API_KEY", WRONG)
    with ModelServer(lambda asked: f"you said {WRONG}", key="the right one") as server:
        said = refused(2, "search", "tiny", "--model", f"{protocol}:fake@{server.base_url(protocol)}")
        assert server.asked == []
    assert "refuses the key for fake" in said
    assert "check OPENAI_API_KEY or ANTHROPIC_API_KEY" in said
    assert WRONG not in said
    assert not unkeyed.runs.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_where_nobody_listens_nothing_is_begun(protocol, unkeyed, refused):
    said = refused(2, "search", "tiny", "--model", f"{protocol}:fake@http://127.0.0.1:9/v1")
    assert "no server answers at http://127.0.0.1:9/v1" in said
    assert "correct the address" in said
    assert not unkeyed.runs.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_its_service_does_not_know_is_said_to_be_unknown(protocol, unkeyed, refused):
    with ModelServer(["a kernel"], models=["another"]) as server:
        said = refused(2, "search", "tiny", "--model", f"{protocol}:fake@{server.base_url(protocol)}")
    assert "knows no model 'fake'" in said
    assert "check the name" in said


def test_a_model_without_a_price_can_not_be_asked_on_a_budget_in_money(unkeyed, refused):
    said = refused(2, "search", "tiny", "--model", "openai-chat:mine@http://127.0.0.1:9/v1", "--usd", "1")
    assert "the price of mine isn't known" in said
    assert "models_file" in said
    assert not unkeyed.runs.exists()


@pytest.mark.parametrize("budget", [("--usd", "0.01"), ("--tokens", "1000")])
def test_a_budget_that_does_not_last_for_one_question_is_refused(budget, unkeyed, refused):
    with ModelServer(["a kernel"]) as server:
        file = models_file(unkeyed.runs.parent, server, "anthropic")
        said = refused(2, "search", "tiny", "--model", "fake", "--models-file", str(file), *budget)
        assert server.asked == []
    assert "isn't sure to last for one question to fake" in said
    assert budget[0] in said
    assert not unkeyed.runs.exists()


def test_a_run_whose_budget_is_spent_asks_nothing_more_and_says_so(unkeyed, capfd, monkeypatch):
    on_landscape(monkeypatch, by_tunables)
    with ModelServer([f"```cpp file=main.cpp\n{kernel(SCALE)}\n```"]) as server:
        file = models_file(unkeyed.runs.parent, server, "openai-chat")
        words = ["search", "tiny", "--model", "fake", "--models-file", str(file), "--usd", "0.1", "--evals", "60"]
        assert main([*words, "--no-knowledge"]) in (0, 4)
        asked, judged = len(server.asked), len(Landscape.jobs)
        run = capfd.readouterr().err.partition("run: ")[2].partition("\n")[0]
        code = main(["search", "--resume", run])
        said = capfd.readouterr().out
        assert (len(server.asked), len(Landscape.jobs)) == (asked, judged)
    assert code in (0, 4)
    assert asked >= 1
    assert "stopped by usd" in said
    assert "resumed, it asks nothing; start a new run" in said


# --- prompts ---


@pytest.fixture
def prompts(tmp_path):
    """A copy of the prompts, to be spoilt."""
    return Path(shutil.copytree(Path(__file__).parents[1] / "prompts", tmp_path / "prompts"))


def test_a_template_with_an_unknown_variable_is_named_with_the_known_ones(prompts, unkeyed, refused):
    (prompts / "change-repair.j2").write_text("{{ colour }}\n")
    said = refused(2, "search", "tiny", "--model", "mailbox:me", "--proposer", "model", "--prompts", str(prompts))
    assert f"{prompts / 'change-repair.j2'}: unknown variable 'colour'" in said
    assert "the variables are: bottleneck" in said
    assert not unkeyed.runs.exists()


def test_a_document_without_a_line_in_the_index_is_named_with_that_line(prompts, unkeyed, refused):
    (prompts / "knowledge" / "guidance" / "colours.md").write_text("# Colours\n\nRed is fast.\n")
    said = refused(2, "search", "tiny", "--model", "mailbox:me", "--proposer", "model", "--prompts", str(prompts))
    assert "colours.md has no line in" in said
    assert "add one: | [title](guidance/colours.md) |" in said
    assert not unkeyed.runs.exists()


# --- the machine ---


def test_a_machine_without_a_compiler_says_how_to_get_one(settings, tmp_path):
    bare = tmp_path / "bin"
    bare.mkdir()
    (tmp_path / "main.cpp").write_text("int nothing;\n")
    for words in (["search", "tiny"], ["eval", "tiny", "main.cpp"]):
        ended = command(settings, *words, "--json", PATH=str(bare))
        assert ended.returncode == 1
        error = json.loads(ended.stdout)["error"]
        assert error["kind"] == "ToolchainError"
        assert "g++" in error["message"]
        assert "install" in error["remedy"]
        assert error["message"] in ended.stderr
        assert "Traceback" not in ended.stderr


# --- the store ---


def test_a_locked_database_is_waited_for_and_then_named(settings, refused, monkeypatch):
    def impatient(path, *, read_only, timeout_s):
        return make_engine(path, read_only=read_only, timeout_s=0.05)

    monkeypatch.setattr(sql, "make_engine", impatient)
    database = Runs(settings.runs).database
    SqlStore.open(database).close()
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        said = refused(1, "search", "tiny")
    finally:
        holder.close()
    assert "locked by another process" in said
    assert str(database) in said


@pytest.mark.parametrize("words", [("search", "tiny"), ("runs", "list"), ("search", "--resume", "tiny-1")])
def test_a_damaged_database_is_named_and_left_as_it_is(words, settings, refused):
    database = Runs(settings.runs).database
    database.parent.mkdir()
    database.write_bytes(b"not a database, whatever its name says\n" * 100)
    before = database.read_bytes()
    said = refused(1, *words)
    assert "damaged" in said
    assert str(database) in said
    assert database.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(settings, refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(1, "search", "tiny", "--runs", str(tmp_path / "file" / "runs"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of half a MiB; a function makes it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield disk, lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_ends_the_search_and_nothing_is_lost(settings, small_disk, capfd, monkeypatch):
    disk, enlarge = small_disk
    (disk / "ballast").write_bytes(bytes(180 << 10))
    monkeypatch.setenv("KERNELEVOLVE_RUNS", str(disk / "runs"))
    there = settings.model_copy(update={"runs": disk / "runs"})
    session = Session.start(there, "tiny")
    room = shutil.disk_usage(disk).free
    (disk / "more").write_bytes(bytes(max(0, room - (40 << 10))))
    capfd.readouterr()
    code = main(["search", "--resume", session.spec.run, "--json"])
    said = capfd.readouterr()
    error = json.loads(said.out)["error"]
    assert (code, error["kind"]) == (1, "StoreError")
    assert "full" in error["message"]
    assert "--resume" in error["remedy"]
    assert "Traceback" not in said.err
    enlarge()
    result = Session.resume(there, session.spec.run).run(lambda _: None)
    assert (result.evaluated, result.stopped) == (3, "budget")


def test_a_full_disk_at_the_start_is_named_too(settings, small_disk, refused):
    disk, _ = small_disk
    (disk / "ballast").write_bytes(bytes(500 << 10))
    assert "full" in refused(1, "search", "tiny", "--runs", str(disk / "runs"))


def test_a_full_disk_under_the_report_is_named(settings, small_disk, refused):
    disk, _ = small_disk
    name = Session.start(settings, "tiny").spec.run
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free))
    assert str(disk) in refused(1, "runs", "report", name, "--out", str(disk / "report"))


# --- files ---


def test_a_source_that_is_not_text_is_named(settings, refused, tmp_path):
    Path(tmp_path / "kernel.cpp").write_bytes(b"\xff\xfe\x00binary")
    assert "kernel.cpp" in refused(2, "eval", "tiny", "kernel.cpp")


def test_a_store_that_was_taken_away_in_mid_search_is_our_failure(settings):
    session = Session.start(settings, "tiny")
    name = session.spec.run
    shutil.rmtree(settings.runs)
    with pytest.raises(StoreError):
        stored(settings, name)
