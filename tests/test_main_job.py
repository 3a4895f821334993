"""The main job: search, certify, publish, serve; and every command looks at what it left behind."""

import json
import shutil
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from searching import SLOW_BASELINE, by_tunables, command, judge_here, landscape, some_settings, stored, variant

from kernelevolve import Runtime, outside
from kernelevolve.cli.app import main
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.schema import Run
from kernelevolve.settings import Settings


@dataclass(frozen=True)
class Job:
    """A search that was made as a command."""

    settings: Settings
    document: dict[str, object]
    errors: str
    run: Run


@pytest.fixture(scope="module")
def job(tmp_path_factory, cache_dir, tiny_target_folder):
    """`kernelevolve search tiny --json`, by two judges, against a slow baseline."""
    base = tmp_path_factory.mktemp("job")
    folder = variant(tiny_target_folder, base, "sure", {"baselines.py": SLOW_BASELINE})
    settings = some_settings(base, cache_dir, folder, evals=2, workers=2)
    ended = command(settings, "search", "tiny", "--json")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    return Job(settings, document, ended.stderr, stored(settings, document["run"]))


def serve(job, registry=None):
    settings = job.settings
    return Runtime(registry or settings.registry, targets=settings.targets, cache_dir=settings.cache)


def inputs(rows=32, n=400):
    """A shape between those that were measured: no workload has it."""
    return torch.randn(rows, n), torch.randn(n)


def test_the_search_ends_certified_with_all_that_was_promised(job):
    found = job.document
    assert (found["target"], found["verdict"], found["stopped"]) == ("tiny", "certified", "budget")
    assert (found["evaluated"], found["failed"], found["baseline"]) == (2, 0, "eager")
    assert found["hardware"] == job.run.spec.hardware.key
    assert found["seconds"] > 0
    best = found["best"]
    assert 1 < best["low"] <= best["speedup"] <= best["high"]
    assert best["candidate"] in [step.candidate.digest for step in job.run.steps]
    assert [e.kind for e in job.run.events] == ["started", "finished", "certified"]


def test_progress_goes_to_standard_error(job):
    lines = job.errors.splitlines()
    assert lines[0] == f"run: {job.document['run']}"
    assert lines[1] == "at once: 2 evaluations"
    assert lines[2].startswith("calibrating: 0/2 evaluated")
    assert any(line.startswith("done: 2/2 evaluated, 0 failed, 0 under way, best ") for line in lines)
    assert "\x1b" not in job.errors


def test_the_winner_is_published_with_its_evidence(job):
    (published,) = LocalRegistry(job.settings.registry).entries()
    assert str(published.path) == job.document["entry"]
    assert published.entry.candidate.digest == job.document["best"]["candidate"]
    assert {m.workload for m in published.entry.evidence} >= {"cpu-64x300", "cpu-16x300"}


def test_the_winner_is_served_on_a_shape_that_nobody_measured(job):
    op = serve(job).op("tiny")
    x, factor = inputs()
    torch.testing.assert_close(op(x, factor), x * factor)
    assert op.stats.hits == 1
    assert op.stats.fallbacks == 0


def test_outside_its_domain_the_reference_answers(job):
    op = serve(job).op("tiny")
    x, factor = inputs(rows=3, n=17)
    torch.testing.assert_close(op(x, factor), x * factor)
    assert (op.stats.hits, dict(op.stats.misses)) == (0, {"shape": 1})


def test_a_damaged_entry_is_not_served_and_verify_names_it(job, tmp_path):
    registry = tmp_path / "registry"
    shutil.copytree(job.settings.registry, registry)
    (published,) = LocalRegistry(registry).entries()
    source = next((published.path / "sources").iterdir())
    source.write_text(source.read_text().replace("*", "+"))

    op = serve(job, registry).op("tiny")
    x, factor = inputs()
    torch.testing.assert_close(op(x, factor), x * factor)
    assert (op.stats.hits, dict(op.stats.misses)) == (0, {"damaged": 1})

    ended = command(job.settings, "registry", "verify", "--registry", str(registry), "--json")
    assert ended.returncode == 1
    (found,) = json.loads(ended.stdout)["entries"]
    assert found["path"] == str(published.path)
    assert source.name in found["problem"]
    assert str(published.path) in command(job.settings, "registry", "verify", "--registry", str(registry)).stdout


# --- every command, on what the search left behind ---


@pytest.fixture
def here(job, monkeypatch):
    """The settings of the job for commands in this process."""
    for name in ("cache", "targets", "threads", "runs", "registry"):
        monkeypatch.setenv(f"KERNELEVOLVE_{name.upper()}", str(getattr(job.settings, name)))
    monkeypatch.chdir(job.settings.runs.parent)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("targets list", "tiny"),
        ("targets show tiny", "cpu-64x300"),
        ("hardware", "{hardware}"),
        ("hardware list", "{hardware}"),
        ("runs list", "certified"),
        ("runs show {run}", "cpu-64x512"),
        ("registry list", "tiny"),
        ("registry show {digest}", "cpu-16x300"),
        ("registry verify", "1 entries, 0 damaged"),
        ("doctor", "g++"),
    ],
)
def test_a_command_speaks_in_words_and_in_json(line, shown, job, here, capfd):
    digest = Path(str(job.document["entry"])).name[:12]
    names = {"run": job.document["run"], "hardware": job.document["hardware"], "digest": digest}
    words = line.format(**names).split()
    assert main(words) == 0
    assert shown.format(**names) in capfd.readouterr().out
    ended = command(job.settings, *words, "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)


def test_a_finished_run_that_is_resumed_says_the_same_and_measures_nothing(job, here, monkeypatch, capfd):
    jobs = landscape(monkeypatch, by_tunables)
    monkeypatch.setattr("kernelevolve.certify.EXECUTORS", outside.EXECUTORS)
    assert main(["search", "--resume", str(job.document["run"]), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert {k: v for k, v in found.items() if k != "seconds"} == {
        k: v for k, v in job.document.items() if k != "seconds"
    }
    assert jobs == []
    events = [e.kind for e in stored(job.settings, str(job.document["run"])).events]
    assert events == ["started", "finished", "certified", "resumed", "finished", "certified"]


class Page(HTMLParser):
    """What a page fetches from elsewhere."""

    def __init__(self):
        super().__init__()
        self.fetched = []

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]


def test_the_report_is_there_and_needs_nothing_else(job, tmp_path):
    name = str(job.document["run"])
    own = job.settings.runs / name
    assert {file.name for file in own.iterdir()} == {"report.html", "report.md"}
    ended = command(job.settings, "runs", "report", name, "--out", str(tmp_path / "report"), "--json")
    assert ended.returncode == 0, ended.stderr
    paths = json.loads(ended.stdout)
    page = Page()
    page.feed(Path(paths["html"]).read_text())
    assert not [link for link in page.fetched if not link.startswith("data:")]
    text = Path(paths["markdown"]).read_text()
    assert "certified" in text
    assert "cpu-16x300" in text
    assert "TVM_FFI_DLL_EXPORT_TYPED_FUNC" in text
    assert "kernelevolve search tiny --evals 2" in text


def test_another_search_can_share_folders_with_the_first(job, here, monkeypatch, capfd):
    judge_here(monkeypatch)
    assert main(["search", "tiny", "--evals", "1", "--seed", "1", "--workers", "1"]) == 0
    assert "certified: published as" in capfd.readouterr().out
    assert main(["runs", "list", "--json"]) == 0
    runs = json.loads(capfd.readouterr().out)
    assert [(run["evaluated"], run["last_event"]) for run in runs] == [(1, "certified"), (2, "certified")]
    assert len(LocalRegistry(job.settings.registry).entries()) == 2
