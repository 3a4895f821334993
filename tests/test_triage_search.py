"""A search without the device: the same search, nothing measured, and a queue at its end."""

import json
import signal

import pytest
from searching import candidates, command, some_settings, stored
from test_resume import (
    PowerCut,
    begin,
    cut_at,
    everything,
    in_an_evaluation,
    kill_9,
    nothing_is_left,
    only_run,
    orphans_are_ours,
    until,
)
from triaging import gpu_target, triage_landscape

from kernelevolve.cli.app import main
from kernelevolve.cli.formats import microseconds
from kernelevolve.cli.progress import line
from kernelevolve.errors import UnknownNameError, UsageError
from kernelevolve.hardware import detect
from kernelevolve.queueing import queue_of
from kernelevolve.runs import Runs, read_queue
from kernelevolve.schema import Passed, Triaged
from kernelevolve.search import TRIAGE, Session
from kernelevolve.testing.executor_contract import descendants
from kernelevolve.testing.records import a_failed, a_triaged

__all__ = ["orphans_are_ours"]
EVALS = 5


def ignore(progress):
    """A listener that isn't interested."""


@pytest.fixture
def folder(tiny_target_folder, tmp_path):
    return gpu_target(tiny_target_folder, tmp_path)


def settings_for(base, cache_dir, folder, **changes):
    return some_settings(base, cache_dir, folder, **{"hardware": "nvidia-h200", "evals": EVALS, **changes})


def searched(settings, listen=ignore):
    result = Session.start(settings, "tiny", TRIAGE).run(listen)
    return result, stored(settings, result.run)


def by_block(job):
    """The larger the block, the better; two warps are no better than four."""
    return 1000.0 / int(job.candidate.tunables["BLOCK"])


# --- with a triage that knows the answers ---


def test_nothing_is_measured_confirmed_or_taken_for_the_best(tmp_path, cache_dir, folder, monkeypatch):
    jobs = triage_landscape(monkeypatch, by_block)
    result, run = searched(settings_for(tmp_path, cache_dir, folder))
    assert (result.evaluated, result.failed, result.stopped, result.best) == (EVALS, 0, "budget", None)
    assert {type(step.evaluation) for step in run.steps} == {Triaged}
    assert not any(step.confirmations for step in run.steps)
    assert [job.purpose for job in jobs] == ["search"] * EVALS
    assert run.calibration.times == {}
    assert (run.spec.executor, run.spec.hardware.key, run.spec.language) == ("triage", "nvidia-h200", "triton")
    assert set(run.spec.hardware.toolchain) >= {"triton", "torch"}, "briefs tell of them, a replay's too"
    assert run.spec.workers <= detect().cores or run.spec.workers == 1


def test_the_queue_has_what_passed_by_estimate_and_no_code_twice(tmp_path, cache_dir, folder, monkeypatch):
    def answer(job):
        block, warps = (int(job.candidate.tunables[name]) for name in ("BLOCK", "WARPS"))
        if block == 1024:
            return a_failed(job.candidate, "build", target=job.target.digest)
        code = {(256, 4): "same", (256, 2): "same", (512, 4): "fast", (512, 2): None}[block, warps]
        us = {"same": 30.0, "fast": 20.0, None: None}[code]
        return a_triaged(job.candidate, us, target=job.target.digest, code=code)

    triage_landscape(monkeypatch, answer)
    result, run = searched(settings_for(tmp_path, cache_dir, folder, evals=6))
    assert (result.evaluated, result.failed) == (6, 2)
    queue = queue_of(run)
    assert [entry.estimated_us for entry in queue.entries] == [20.0, 30.0, None]
    same = [s for s in run.steps if isinstance(s.evaluation, Triaged) and s.evaluation.code == "same"]
    assert queue.entries[1].candidate == same[0].candidate  # the first of the two
    assert (queue.target, queue.target_digest) == ("tiny", run.spec.target.digest)
    assert (queue.hardware_key, queue.run) == ("nvidia-h200", result.run)


def test_the_tuner_follows_the_estimates(tmp_path, cache_dir, folder, monkeypatch):
    seed = "TUNABLES = {'BLOCK': [16, 32, 64, 128, 256, 512, 1024], 'WARPS': [1, 2, 4, 8, 16]}"
    path = folder / "tiny" / "seeds" / "triton" / "scale.py"
    text = path.read_text()
    path.write_text(text.replace(text[text.index("TUNABLES") : text.index("\n\n\n@triton")], seed))
    triage_landscape(monkeypatch, by_block)
    _, run = searched(settings_for(tmp_path, cache_dir, folder, evals=24, policy="greedy"))
    blocks = [int(c.tunables["BLOCK"]) for c in candidates(run)]
    assert sum(blocks[12:]) > sum(blocks[:12])
    assert len({c.code for c in candidates(run)}) == 24


def test_wherever_it_is_cut_off_it_comes_to_the_same_end(tmp_path, cache_dir, folder, monkeypatch):
    jobs = triage_landscape(monkeypatch, by_block)
    _, expected = searched(settings_for(tmp_path / "whole", cache_dir, folder, evals=3))
    for write in range(100):
        settings = settings_for(tmp_path / str(write), cache_dir, folder, evals=3)
        session = Session.start(settings, "tiny", TRIAGE)
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
        assert (resumed.evaluated, resumed.failed, resumed.stopped) == (3, 0, "budget")
        assert everything(after) == everything(expected)
        done = {s.candidate.digest for s in before.steps if s.evaluation is not None}
        assert not done & {job.candidate.digest for job in jobs}
    assert write > 9  # every write was tried


def test_progress_is_told_by_the_best_estimate_and_calls_it_one(tmp_path, cache_dir, folder, monkeypatch):
    triage_landscape(monkeypatch, by_block)
    heard = []
    _, run = searched(settings_for(tmp_path, cache_dir, folder), heard.append)
    best = min((s for s in run.steps), key=lambda s: s.evaluation.estimated_us)
    assert heard[-1].best is None
    assert heard[-1].best_label == best.candidate.label
    assert f"best estimate {microseconds(best.evaluation.estimated_us)} us" in line(heard[-1])
    assert "nothing passed yet" in line(heard[0])


# --- the command ---


@pytest.fixture
def words(tmp_path, cache_dir, folder, monkeypatch):
    monkeypatch.setenv("KERNELEVOLVE_CACHE", str(cache_dir))
    monkeypatch.setenv("KERNELEVOLVE_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERNELEVOLVE_TARGETS", str(folder))
    return ["search", "tiny", "--triage", "--hardware", "nvidia-h200", "--evals", "3"]


def test_the_command_writes_the_queue_and_says_where_it_is(words, tmp_path, monkeypatch, capsys):
    triage_landscape(monkeypatch, by_block)
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    queue = read_queue(tmp_path / document["queue"])
    assert (document["evaluated"], document["queued"], document["hardware"]) == (3, 3, "nvidia-h200")
    assert [e["candidate"] for e in document["entries"]] == [e.candidate.digest for e in queue.entries]
    times = [e["estimated_us"] for e in document["entries"]]
    assert times == sorted(times)
    assert not (tmp_path / "registry").exists()

    assert main(words) == 0
    told = capsys.readouterr().out
    assert "estimates by a static model, not measurements" in told
    assert "eval --queue" in told
    name = told.rpartition("run: ")[2].strip()
    assert main(["runs", "show", name]) == 0
    assert "triaged for nvidia-h200 and not measured: 3" in capsys.readouterr().out
    assert main(["runs", "report", name]) == 0
    report = Runs(tmp_path / "runs").report_paths(name).markdown.read_text()
    assert "3 candidates passed triage; nothing was measured" in report
    assert "--triage" in report


def test_it_ends_with_4_when_nothing_is_left(words, monkeypatch, capsys):
    triage_landscape(monkeypatch, lambda job: a_failed(job.candidate, "build", target=job.target.digest))
    assert main([*words, "--json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert (document["queued"], document["failed"]) == (0, 3)
    assert main(words) == 4
    assert "nothing is left" in capsys.readouterr().out


def test_a_resumed_run_needs_not_be_told_again_that_it_is_one_without_the_device(words, monkeypatch, capsys):
    triage_landscape(monkeypatch, by_block)
    assert main([*words, "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["run"]
    for more in ([], ["--triage"]):
        assert main(["search", "--resume", run, "--json", *more]) == 0
        assert json.loads(capsys.readouterr().out)["queued"] == 3


# --- what can't be done as asked ---


def test_a_device_that_is_not_here_leads_to_triage(tmp_path, cache_dir, folder):
    with pytest.raises(UnknownNameError) as caught:
        Session.start(settings_for(tmp_path, cache_dir, folder), "tiny")
    assert "--triage" in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hardware": None}, "needs the name of a device.*nvidia-h200"),
        ({"hardware": "nvidia-h20"}, "nvidia-h20.*nvidia-h200"),
        ({"language": "cpp"}, "cpp kernels don't run on nvidia-h200.*--language"),
        ({"language": "tritn"}, "tritn.*triton"),
    ],
)
def test_what_can_not_be_triaged_is_said_before_anything_is_written(changes, said, tmp_path, cache_dir, folder):
    settings = settings_for(tmp_path, cache_dir, folder, **changes)
    with pytest.raises(UsageError, match=said):
        Session.start(settings, "tiny", TRIAGE)
    assert not settings.runs.exists()


def test_a_target_without_gpu_workloads_can_not_be_triaged(tmp_path, cache_dir, tiny_target_folder):
    with pytest.raises(UsageError, match="no search workload for a gpu"):
        Session.start(settings_for(tmp_path, cache_dir, tiny_target_folder), "tiny", TRIAGE)


# --- the real triage ---


@pytest.mark.slow
def test_kill_9_costs_nothing_that_was_looked_at(tmp_path, cache_dir, folder, orphans_are_ours):
    settings = settings_for(tmp_path, cache_dir, folder, evals=2)
    before = descendants()
    process = begin(settings, "tiny", "--triage")
    until(lambda: in_an_evaluation(settings), process)
    kill_9(process, before)
    cut = only_run(settings)

    ended = command(settings, "search", "--resume", cut.spec.run, "--json")
    assert ended.returncode == 0, ended.stderr
    nothing_is_left(before)
    document = json.loads(ended.stdout)
    assert (document["run"], document["evaluated"], document["failed"], document["queued"]) == (cut.spec.run, 2, 0, 2)
    run = stored(settings, cut.spec.run)
    assert [(s.number, s.evaluation.outcome) for s in run.steps] == [(0, "triaged"), (1, "triaged")]
    assert [e.kind for e in run.events] == ["started", "resumed", "finished"]
    for old, new in zip(cut.steps, run.steps, strict=False):
        assert old.evaluation in (None, new.evaluation)
        assert old.candidate == new.candidate
    for step in run.steps:
        (estimate,) = step.evaluation.estimates
        assert estimate.workload == "gpu-1024x4096"
        assert estimate.low_us < estimate.estimated_us < estimate.high_us
        assert estimate.moved_bytes == 2 * 4 * 1024 * 4096 + 4 * 4096
        assert step.evaluation.code
    assert not any(isinstance(step.evaluation, Passed) for step in run.steps)
    assert process.returncode == -signal.SIGKILL
