"""A queue is drained best first, each result is kept before the next candidate is begun, and none is measured twice."""

import json
import os
import shutil
import subprocess
import threading

import pytest
from searching import QUICKLY, SCALE, SLOWLY, Landscape, argv, command, environment, judge_here, kernel, some_settings
from test_resume import kill_9, orphans_are_ours, until
from triaging import cpu_queue

from kernelevolve import targets
from kernelevolve.catalog import Catalog
from kernelevolve.cli.app import main
from kernelevolve.drain import drain
from kernelevolve.errors import StoreError, UsageError
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.runs import QueueResults, read_queue, write_queue
from kernelevolve.schema import evaluation_adapter
from kernelevolve.testing.executor_contract import descendants
from kernelevolve.testing.records import a_failed, a_measurement, a_passed

__all__ = ["orphans_are_ours"]
BROKEN = kernel("to[rows * n / 2] = from[0];")
FIVE = {f"k{i}": kernel(SCALE, f"// number {i}") for i in range(5)}


def ignore(drained, left):
    """A listener that isn't interested."""


@pytest.fixture
def settings(tmp_path, cache_dir, tiny_target_folder):
    return some_settings(tmp_path, cache_dir, tiny_target_folder)


def put(queue, folder):
    path = folder / "queue.json"
    write_queue(path, queue)
    return path


def lines(path):
    return path.with_suffix(".results.jsonl").read_text().splitlines()


def known_times(monkeypatch, microseconds):
    """Have the judge say these times, by the name of the candidate; the names that it was asked, in order."""
    asked = []

    def answer(job):
        name = job.candidate.lineage.origin
        asked.append(name)
        us = microseconds[name]
        if us is None:
            return a_failed(job.candidate, "check", purpose=job.purpose, target=job.target.digest)
        timed = tuple(a_measurement(10.0 / us, workload=w.name, candidate_us=us, baseline_us=10.0)
                      for w in job.target.select("cpu", "search"))  # fmt: skip
        return a_passed(job.candidate, purpose=job.purpose, target=job.target.digest, measurements=timed)

    monkeypatch.setattr(Landscape, "answer", staticmethod(answer), raising=False)
    monkeypatch.setattr(Landscape, "jobs", [], raising=False)
    monkeypatch.setattr("kernelevolve.drain.EXECUTORS", Catalog("executors", {"local": "searching:Landscape"}))
    return asked


# --- with the real judge ---


def test_right_and_wrong_candidates_are_judged_like_any_other(settings, tmp_path, tiny_target_folder, monkeypatch):
    judge_here(monkeypatch)
    sources = {"quick": kernel(QUICKLY), "broken": BROKEN, "no kernel": "int x;\n", "slow": kernel(SLOWLY)}
    path = put(cpu_queue(tiny_target_folder, sources), tmp_path)
    outcome = drain(settings, [path], ignore)
    assert [d.entry.candidate.lineage.origin for d in outcome.drained] == list(sources)
    assert [d.evaluation.outcome for d in outcome.drained] == ["passed", "failed", "failed", "passed"]
    assert [getattr(d.evaluation, "stage", None) for d in outcome.drained] == [None, "check", "parse", None]
    assert {d.evaluation.purpose for d in outcome.drained} == {"eval"}
    assert outcome.drained[3].measured_us > outcome.drained[0].measured_us
    assert (outcome.left, outcome.agreement) == (0, None)
    kept = [evaluation_adapter.validate_json(line) for line in lines(path)]
    assert kept == [d.evaluation for d in outcome.drained]
    assert not any(d.earlier for d in outcome.drained)

    again = drain(settings, [path], ignore)
    assert [(d.entry, d.evaluation) for d in again.drained] == [(d.entry, d.evaluation) for d in outcome.drained]
    assert all(d.earlier for d in again.drained)
    assert len(lines(path)) == 4


@pytest.mark.slow
def test_kill_9_costs_nothing_that_was_measured(settings, tmp_path, tiny_target_folder, orphans_are_ours):
    path = put(cpu_queue(tiny_target_folder, dict(list(FIVE.items())[:2])), tmp_path)
    results = path.with_suffix(".results.jsonl")
    before = descendants()
    process = subprocess.Popen(
        argv("eval", "--queue", str(path)), env=environment(settings), cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    until(lambda: results.is_file() and results.read_bytes().count(b"\n"), process)
    kill_9(process, before)
    kept = [line for line in results.read_text().splitlines(keepends=True) if line.endswith("\n")]

    ended = command(settings, "eval", "--queue", str(path), "--json")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert [e["label"] for e in document["evaluated"]] == ["k0", "k1"]
    assert [e["earlier"] for e in document["evaluated"]] == [True] * len(kept) + [False] * (2 - len(kept))
    assert results.read_text().startswith("".join(kept))
    assert len(lines(path)) == 2


# --- with a judge that knows the answers ---


def test_the_best_estimates_go_first_and_top_says_how_many(settings, tmp_path, tiny_target_folder, monkeypatch):
    asked = known_times(monkeypatch, dict.fromkeys(FIVE, 5.0))
    path = put(cpu_queue(tiny_target_folder, FIVE, (1.0, 2.0, 3.0, 4.0)), tmp_path)
    heard = []
    outcome = drain(settings, [path], lambda drained, left: heard.append(left), top=2)
    assert (asked, heard, outcome.left) == (["k0", "k1"], [1, 0], 0)
    assert drain(settings, [path], ignore, top=3).left == 0
    assert asked == ["k0", "k1", "k2"]
    assert [d.earlier for d in drain(settings, [path], ignore).drained] == [True, True, True, False, False]


def test_several_queues_of_a_target_go_by_turns(settings, tmp_path, tiny_target_folder, monkeypatch):
    asked = known_times(monkeypatch, dict.fromkeys(FIVE, 5.0))
    names, paths = list(FIVE), []
    for folder, some in (("one", names[:3]), ("other", names[2:])):
        (tmp_path / folder).mkdir()
        queue = cpu_queue(tiny_target_folder, {name: FIVE[name] for name in some}).model_copy(update={"run": folder})
        paths.append(put(queue, tmp_path / folder))
    outcome = drain(settings, paths, ignore)
    assert asked == ["k0", "k2", "k1", "k3", "k4"]  # k2 is in both
    assert [d.entry.candidate.lineage.origin for d in outcome.drained] == list(FIVE)
    assert sorted(outcome.runs.values()) == ["one", "one", "other", "other", "other"]
    assert sum(len(lines(path)) for path in paths) == 5
    assert all(d.earlier for d in drain(settings, paths, ignore).drained)


def test_queues_of_several_targets_are_refused(settings, tmp_path, tiny_target_folder):
    queue = cpu_queue(tiny_target_folder, FIVE)
    (tmp_path / "other").mkdir()
    paths = [put(queue, tmp_path), put(queue.model_copy(update={"target": "topk"}), tmp_path / "other")]
    with pytest.raises(UsageError, match="of several targets: tiny, topk"):
        drain(settings, paths, ignore)


def test_as_many_as_there_are_workers_are_judged_at_once(settings, tmp_path, tiny_target_folder, monkeypatch):
    known_times(monkeypatch, dict.fromkeys(FIVE, 5.0))
    answer, together = Landscape.answer, threading.Barrier(2, timeout=30.0)

    def meet(job):
        if job.candidate.lineage.origin in ("k0", "k1"):
            together.wait()  # breaks where the second isn't begun before the first has ended
        return answer(job)

    monkeypatch.setattr(Landscape, "answer", staticmethod(meet))
    path = put(cpu_queue(tiny_target_folder, FIVE), tmp_path)
    assert drain(settings.model_copy(update={"workers": 2}), [path], ignore).left == 0


def test_time_that_is_up_leaves_the_rest_for_later(settings, tmp_path, tiny_target_folder, monkeypatch):
    known_times(monkeypatch, dict.fromkeys(FIVE, 5.0))
    path = put(cpu_queue(tiny_target_folder, FIVE), tmp_path)
    late = settings.model_copy(update={"minutes": 1e-9})
    assert (drain(late, [path], ignore).left, lines(path)) == (5, [])
    assert drain(settings, [path], ignore).left == 0


def test_estimates_are_held_against_what_was_measured(settings, tmp_path, tiny_target_folder, monkeypatch):
    times = {"k0": 4.0, "k1": 3.0, "k2": None, "k3": 8.0, "k4": 9.0}
    known_times(monkeypatch, times)
    path = put(cpu_queue(tiny_target_folder, FIVE, (1.0, 2.0, 3.0, 4.0)), tmp_path)
    found = drain(settings, [path], ignore).agreement
    assert found is not None
    assert found.pairs == 3  # one failed, one has no estimate
    assert found.spearman == pytest.approx(0.5)
    assert found.kendall == pytest.approx(1 / 3)


def test_a_last_line_that_was_cut_off_is_measured_again(settings, tmp_path, tiny_target_folder, monkeypatch):
    asked = known_times(monkeypatch, dict.fromkeys(FIVE, 5.0))
    path = put(cpu_queue(tiny_target_folder, FIVE), tmp_path)
    drain(settings, [path], ignore, top=3)
    results = path.with_suffix(".results.jsonl")
    whole = results.read_bytes()
    os.truncate(results, len(whole) - 10)
    asked.clear()
    assert drain(settings, [path], ignore, top=3).left == 0
    assert asked == ["k2"]
    assert results.read_bytes() == whole


def test_a_failure_to_write_stops_it_and_costs_nothing(settings, tmp_path, tiny_target_folder, monkeypatch):
    asked = known_times(monkeypatch, dict.fromkeys(FIVE, 5.0))
    path = put(cpu_queue(tiny_target_folder, FIVE), tmp_path)
    real = QueueResults.append

    def full(results, evaluation):
        if len(asked) == 3:
            raise StoreError("no space left on device", remedy="make room")
        real(results, evaluation)

    with monkeypatch.context() as patch, pytest.raises(StoreError):
        patch.setattr(QueueResults, "append", full)
        drain(settings, [path], ignore)
    assert len(lines(path)) == 2
    drain(settings, [path], ignore)
    assert asked == ["k0", "k1", "k2", "k2", "k3", "k4"]


# --- what can't be drained ---


def test_a_queue_for_other_hardware_is_refused_with_the_reason(settings, tmp_path, tiny_target_folder):
    queue = cpu_queue(tiny_target_folder, FIVE).model_copy(update={"hardware_key": "nvidia-h200"})
    with pytest.raises(UsageError, match="for nvidia-h200, which isn't here: this machine has"):
        drain(settings, [put(queue, tmp_path)], ignore)


def test_a_queue_for_another_version_of_the_target_is_refused(settings, tmp_path, tiny_target_folder):
    path = put(cpu_queue(tiny_target_folder, FIVE), tmp_path)
    home = tmp_path / "other"
    shutil.copytree(tiny_target_folder, home)
    file = home / "tiny" / "target.toml"
    file.write_text(file.read_text().replace("rows = 16", "rows = 17"))
    with pytest.raises(UsageError, match="isn't the one that the queue was made for"):
        drain(settings.model_copy(update={"targets": home}), [path], ignore)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"target_digest"', '"digest"'),
        lambda text: text.replace("main.cpp", "\udc80").encode(errors="surrogateescape"),
    ],
)
def test_a_damaged_queue_is_refused_and_nothing_is_written(damage, settings, tmp_path, tiny_target_folder):
    path = put(cpu_queue(tiny_target_folder, FIVE), tmp_path)
    found = damage(path.read_text())
    path.write_bytes(found if isinstance(found, bytes) else found.encode())
    with pytest.raises(UsageError, match=r"queue\.json is no queue, or a damaged one"):
        drain(settings, [path], ignore)
    assert not path.with_suffix(".results.jsonl").exists()


def test_results_that_are_damaged_in_the_middle_are_not_guessed_at(settings, tmp_path, tiny_target_folder):
    path = put(cpu_queue(tiny_target_folder, FIVE), tmp_path)
    path.with_suffix(".results.jsonl").write_text("{}\n")
    with pytest.raises(StoreError, match="line 1, is no evaluation"):
        drain(settings, [path], ignore)


def test_two_do_not_drain_one_queue(settings, tmp_path, tiny_target_folder):
    path = put(cpu_queue(tiny_target_folder, FIVE), tmp_path)
    with QueueResults.beside(path), pytest.raises(UsageError, match="is being drained"):
        drain(settings, [path], ignore)


def test_a_candidate_in_a_language_of_another_device_is_refused(settings, tmp_path, tiny_target_folder):
    queue = cpu_queue(tiny_target_folder, FIVE)
    entry = queue.entries[0]
    odd = entry.model_copy(update={"candidate": entry.candidate.model_copy(update={"language": "triton"})})
    with pytest.raises(UsageError, match="triton kernels don't run on"):
        drain(settings, [put(queue.model_copy(update={"entries": (odd,)}), tmp_path)], ignore)


# --- the command ---


@pytest.fixture
def here(settings, monkeypatch):
    for name, value in environment(settings).items():
        if name.startswith("KERNELEVOLVE_"):
            monkeypatch.setenv(name, value)


def test_the_command_prints_the_measured_table(here, tmp_path, tiny_target_folder, monkeypatch, capsys):
    known_times(monkeypatch, {"k0": 4.0, "k1": 3.0, "k2": None, "k3": 8.0, "k4": 9.0})
    path = put(cpu_queue(tiny_target_folder, FIVE, (1.0, 2.0, 3.0, 4.0)), tmp_path)
    assert main(["eval", "--queue", str(path), "--top", "4"]) == 0
    told, noted = capsys.readouterr()
    assert "4 evaluated (0 earlier), 1 failed, 0 left" in told
    assert "rank correlation of estimates and measurements over 3 candidates" in told
    assert "k3; 0 left" in noted
    assert main(["eval", "--queue", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [e["measured_us"] and round(e["measured_us"], 6) for e in document["evaluated"]] == [
        4.0,
        3.0,
        None,
        8.0,
        9.0,
    ]
    assert [e["earlier"] for e in document["evaluated"]] == [True] * 4 + [False]
    assert document["agreement"]["pairs"] == 3


def test_it_ends_with_3_when_every_candidate_failed(here, tmp_path, tiny_target_folder, monkeypatch, capsys):
    known_times(monkeypatch, dict.fromkeys(FIVE))
    path = put(cpu_queue(tiny_target_folder, FIVE), tmp_path)
    assert main(["eval", "--queue", str(path)]) == 3
    assert "too few pairs to say" in capsys.readouterr().out
    empty = put(read_queue(path).model_copy(update={"entries": ()}), tmp_path)
    empty.with_suffix(".results.jsonl").unlink()
    assert main(["eval", "--queue", str(empty)]) == 0


@pytest.mark.usefixtures("here")
def test_the_fastest_is_certified_and_published_where_that_is_wished(tmp_path, tiny_target_folder, monkeypatch, capsys):
    judge_here(monkeypatch)
    queue = cpu_queue(tiny_target_folder, {"slow": kernel(SLOWLY), "quick": kernel(QUICKLY)})
    path = put(queue.model_copy(update={"run": "tiny-elsewhere"}), tmp_path)
    words = ["eval", "--queue", str(path), "--registry", str(tmp_path / "registry")]
    assert main([*words, "--certify", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "certified"
    (stored,) = LocalRegistry(tmp_path / "registry").entries("tiny")
    assert stored.entry.candidate.lineage.origin == "quick"
    assert stored.entry.provenance.run == "tiny-elsewhere"
    roles = {w.name: w.role for w in targets.load("tiny", tiny_target_folder).workloads}
    assert {roles[m.workload] for m in stored.entry.evidence} == {"search", "held_out"}


def test_it_ends_with_4_where_nothing_is_to_be_certified(here, tmp_path, tiny_target_folder, monkeypatch, capsys):
    known_times(monkeypatch, dict.fromkeys(FIVE, 20.0))
    path = put(cpu_queue(tiny_target_folder, FIVE), tmp_path)
    assert main(["eval", "--queue", str(path), "--certify", "--registry", str(tmp_path / "registry")]) == 4
    assert "no win: nothing beats the baselines here" in capsys.readouterr().out
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--queue", "none.json"], "can't read none.json"),
        ([], "there is no candidate"),
        (["tiny"], "there is no candidate"),
        (["tiny", "a.cpp", "--queue", "none.json"], "names its target, hardware and candidates itself"),
        (["--queue", "none.json", "--hardware", "nvidia-h200"], "names its target"),
        (["tiny", "a.cpp", "--top", "3"], "--top, --minutes, --workers, --certify and --registry need a queue"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_makes_no_sense_is_a_mistake_of_usage(words, said, capsys):
    assert main(["eval", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_ctrl_c_ends_with_130_and_a_word_on_how_to_go_on(tmp_path, tiny_target_folder, monkeypatch, capsys):
    asked = known_times(monkeypatch, dict.fromkeys(FIVE, 5.0))
    path = put(cpu_queue(tiny_target_folder, FIVE), tmp_path)
    real = QueueResults.append

    def press(results, evaluation):
        real(results, evaluation)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(QueueResults, "append", press)
        assert main(["eval", "--queue", str(path), "--json"]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert f"kernelevolve eval --queue {path}" in err
    assert main(["eval", "--queue", str(path), "--json"]) == 0
    assert asked == list(FIVE)
