"""The search spends its budget exactly, and says only what it measured."""

import random
import statistics
from collections import Counter
from types import SimpleNamespace

import pytest
from searching import (
    SCALE,
    by_tunables,
    candidates,
    judge_here,
    kernel,
    landscape,
    propose_with,
    some_settings,
    stored,
    variant,
)

from kernelevolve.errors import UsageError
from kernelevolve.harness.statistics import interval, verdict
from kernelevolve.rest import surest
from kernelevolve.runs import Runs
from kernelevolve.schema import Failed, Passed, Record, Unsettled
from kernelevolve.search import Session
from kernelevolve.store import SqlStore
from kernelevolve.testing.records import a_failed, a_measurement, a_passed, a_proposal
from kernelevolve.testing.scripted import ScriptedProposer

TUNABLE = (
    kernel(SCALE, "// tunable A: 1 2 3 4 5\n// tunable B: 1 2 4 8 16 32\n// tunable C: 0 1"),
    kernel(f"if (rows == 0) return; {SCALE}", "// tunable A: 1 2 3 4\n// tunable D: 2 3 5 7"),
)


def ignore(progress):
    """A listener that isn't interested."""


@pytest.fixture
def wide(tiny_target_folder, tmp_path):
    """A target with two families of many members."""
    seeds = {f"seeds/cpp/seed{i}.cpp": text for i, text in enumerate(TUNABLE)}
    return variant(tiny_target_folder, tmp_path, "wide", seeds)


def search(settings, listen=ignore):
    result = Session.start(settings, "tiny").run(listen)
    return result, stored(settings, result.run)


# --- with the real judge ---


def test_a_search_spends_its_budget_and_measures_its_best_twice(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    judge_here(monkeypatch)
    settings = some_settings(tmp_path, cache_dir, tiny_target_folder, evals=2)
    result, run = search(settings)
    assert (result.evaluated, result.failed, result.stopped) == (2, 0, "budget")
    assert [step.number for step in run.steps] == [0, 1]
    assert [step.evaluation.purpose for step in run.steps] == ["search", "search"]
    assert [event.kind for event in run.events] == ["started", "finished"]
    (best,) = (step for step in run.steps if step.candidate == result.best.candidate)
    assert result.best.evaluation == surest(best.confirmations)
    assert result.best.evaluation.purpose == "confirm"
    searched = [w.name for w in run.spec.target.select("cpu", "search")]
    assert [m.workload for m in best.evaluation.measurements] == searched
    assert list(run.calibration.times) == searched
    assert result.baseline == dict.fromkeys(searched, "eager")
    with SqlStore.open(Runs(settings.runs).database, read_only=True) as store:
        assert {s.number for s in store.statistics(result.run) if s.name == "told"} == {0, 1}


def test_a_space_that_is_walked_ends_the_search(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    judge_here(monkeypatch)
    result, run = search(some_settings(tmp_path, cache_dir, tiny_target_folder, evals=10))
    assert (result.evaluated, result.stopped) == (3, "exhausted")
    assert {step.candidate.tunables["BLOCK"] for step in run.steps} == {16, 32, 64}


def test_a_wrong_seed_is_counted_as_failed_and_never_wins(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    judge_here(monkeypatch)
    wrong = {"seeds/cpp/adds.cpp": kernel(SCALE.replace("*", "+").replace("rows + n", "rows * n"))}
    folder = variant(tiny_target_folder, tmp_path, "wrong", wrong)
    result, run = search(some_settings(tmp_path, cache_dir, folder, evals=2, policy="best-of-n"))
    (failed,) = (step.evaluation for step in run.steps if isinstance(step.evaluation, Failed))
    assert (result.evaluated, result.failed, failed.stage) == (2, 1, "check")
    assert failed.diagnostics[0].kind == "numeric"
    assert result.best.candidate.lineage.origin == "plain"


# --- on a landscape: what the loop makes of the answers ---


@pytest.mark.parametrize("policy", ["random", "greedy", "best-of-n"])
def test_a_seed_decides_what_is_proposed(policy, tmp_path, cache_dir, wide, monkeypatch):
    landscape(monkeypatch, by_tunables)
    found = []
    for number, seed in enumerate((1, 1, 2)):
        settings = some_settings(tmp_path / str(number), cache_dir, wide, evals=16, seed=seed, policy=policy)
        found.append(candidates(search(settings)[1]))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_no_candidate_is_evaluated_twice(tmp_path, cache_dir, wide, monkeypatch):
    jobs = landscape(monkeypatch, by_tunables)
    result, _ = search(some_settings(tmp_path, cache_dir, wide, evals=40, workers=3))
    searched = Counter(job.candidate.code for job in jobs if job.purpose == "search")
    assert result.evaluated == 40
    assert searched.most_common(1)[0][1] == 1


@pytest.mark.timeout(60)
def test_two_workers_notice_together_that_nothing_is_left(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    landscape(monkeypatch, by_tunables)
    result, _ = search(some_settings(tmp_path, cache_dir, tiny_target_folder, evals=10, workers=2))
    assert (result.evaluated, result.stopped) == (3, "exhausted")


def test_minutes_end_a_sitting_and_what_is_under_way_is_kept(tmp_path, cache_dir, wide, monkeypatch):
    clock = SimpleNamespace(now=0.0)

    def speedup(job):
        clock.now += 40.0
        return 1.0

    monkeypatch.setattr("kernelevolve.search.time", SimpleNamespace(monotonic=lambda: clock.now))
    landscape(monkeypatch, speedup)
    heard = []
    settings = some_settings(tmp_path, cache_dir, wide, evals=50, minutes=1.0)
    result, run = search(settings, heard.append)
    assert result.stopped == "time"
    assert 0 < result.evaluated < 50
    assert result.evaluated == len(run.steps) == sum(step.evaluation is not None for step in run.steps)
    assert heard[0].seconds_left == 60.0
    assert heard[-1].seconds_left == 0.0


def test_a_lucky_first_look_does_not_make_a_best(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    looks = {(16, "search"): 3.0, (16, "confirm"): 1.1, (32, "search"): 1.5, (32, "confirm"): 1.4, (64, "search"): 1.3}
    landscape(monkeypatch, lambda job: looks[job.candidate.tunables["BLOCK"], job.purpose])
    result, run = search(some_settings(tmp_path, cache_dir, tiny_target_folder))
    assert result.best.candidate.tunables == {"BLOCK": 32}
    assert result.best.evaluation.speedup == pytest.approx(1.4)
    assert {s.candidate.tunables["BLOCK"]: len(s.confirmations) for s in run.steps} == {16: 1, 32: 1, 64: 0}


class Measured:
    """Speed-ups as a judge would measure them: normal noise, and an interval as wide as the confidence wants it."""

    def __init__(self, seed, truths, noise=0.01, pairs=24):
        self.rng, self.truths, self.noise, self.pairs = random.Random(seed), truths, noise, pairs

    def __call__(self, job):
        truth = self.truths(job.candidate)
        ratios = [truth * self.rng.lognormvariate(0.0, self.noise) for _ in range(self.pairs)]
        plan = job.timing
        found = interval(ratios, plan.min_pairs, plan.max_pairs, plan.confidence)
        measured = a_measurement(
            statistics.median(ratios), low=found.low, high=found.high, confidence=found.covers,
            verdict=verdict(found, plan.confidence),
        )  # fmt: skip
        return a_passed(job.candidate, purpose=job.purpose, target=job.target.digest, measurements=(measured,))


@pytest.mark.parametrize("seed", range(4))
def test_the_luckiest_of_many_copies_of_the_best_is_not_crowned(seed, tmp_path, cache_dir, wide, monkeypatch):
    landscape(monkeypatch, Measured(seed, lambda _: 1.5, noise=0.03))
    result, run = search(some_settings(tmp_path, cache_dir, wide, evals=50))
    first = next(step for step in run.steps if step.confirmations)
    assert result.evaluated == 50
    assert result.best.candidate == first.candidate


def test_a_candidate_that_is_really_faster_is_crowned(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    truths = {16: 1.5, 32: 1.58, 64: 1.5}
    landscape(monkeypatch, Measured(1, lambda candidate: truths[candidate.tunables["BLOCK"]]))
    result, _ = search(some_settings(tmp_path, cache_dir, tiny_target_folder))
    assert result.best.candidate.tunables == {"BLOCK": 32}


def test_a_best_of_a_noisy_moment_makes_room_for_one_that_is_faster(tmp_path, cache_dir, wide, monkeypatch):
    looks, order = Counter(), {}

    def noisy_at_first(job):
        order.setdefault(job.candidate.digest, len(order))
        first = order[job.candidate.digest] == 0
        looks[job.purpose] += first
        low, high = (0.9, 9.0) if first and looks["confirm"] < 2 else (0.99, 1.01)
        speedup = 2.0 if first else 3.0
        measured = a_measurement(speedup, low=speedup * low, high=speedup * high)
        return a_passed(job.candidate, purpose=job.purpose, target=job.target.digest, measurements=(measured,))

    landscape(monkeypatch, noisy_at_first)
    result, run = search(some_settings(tmp_path, cache_dir, wide, evals=6))
    assert result.best.evaluation.speedup == pytest.approx(3)
    assert len(run.steps[0].confirmations) == 2
    again = Session.resume(some_settings(tmp_path, cache_dir, wide, evals=6), run.spec.run).run(ignore)
    assert again.best == result.best


def test_a_time_that_was_lost_in_noise_is_measured_again(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    noise = Unsettled(message="lost in the noise", advice="measure on a quieter machine")

    def noisy(job):
        if job.purpose == "search" and job.candidate.tunables["BLOCK"] == 32:
            return a_failed(job.candidate, "time", target=job.target.digest, diagnostics=(noise,))
        return {16: 1.2, 32: 3.0, 64: 1.1}[job.candidate.tunables["BLOCK"]]

    landscape(monkeypatch, noisy)
    result, _ = search(some_settings(tmp_path, cache_dir, tiny_target_folder))
    assert result.best.candidate.tunables == {"BLOCK": 32}
    assert result.failed == 1


def test_what_is_more_noise_than_measurement_is_looked_at_again(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    def noisy(job):
        if job.purpose == "search" and job.candidate.tunables["BLOCK"] == 32:
            found = a_measurement(0.5, low=0.3, high=0.9)
            return a_passed(job.candidate, target=job.target.digest, measurements=(found,))
        return {16: 1.2, 32: 3.0, 64: 1.1}[job.candidate.tunables["BLOCK"]]

    landscape(monkeypatch, noisy)
    result, _ = search(some_settings(tmp_path, cache_dir, tiny_target_folder))
    assert result.best.candidate.tunables == {"BLOCK": 32}


def test_a_rival_that_became_the_best_may_be_looked_at_again(tmp_path, cache_dir, wide, monkeypatch):
    """Its step had ended long before, with the best of that day still ahead of it."""
    told = {
        0: [(1.0, 1.0, 2.0), (1.0, 1.0, 1.05)],  # wide, until it is looked at again beside a rival
        1: [(1.4, 1.3, 1.6)],  # such a rival: it takes the place, with a wide interval of its own
        2: [(1.7, 1.5, 1.9)],  # its rival in turn, so that it is looked at again
    }
    seen = {}

    def measured(job):
        step = seen.setdefault(job.candidate.digest, len(seen))
        if job.purpose != "confirm" or step not in told:
            return a_passed(job.candidate, 3.0 if step in told else 0.5, purpose=job.purpose, target=job.target.digest)
        speedup, low, high = told[step].pop(0) if len(told[step]) > 1 else told[step][0]
        found = a_measurement(speedup, low=low, high=high)
        return a_passed(job.candidate, purpose="confirm", target=job.target.digest, measurements=(found,))

    jobs = landscape(monkeypatch, measured)
    result, _ = search(some_settings(tmp_path, cache_dir, wide, evals=5))
    again = [seen[job.candidate.digest] for job in jobs if job.purpose == "confirm"]
    assert again.count(0) == 2
    assert again.count(1) > 1, "it was looked at again"
    assert result.evaluated == 5


def test_confirmations_are_the_surer_the_more_candidates_there_may_be(tmp_path, cache_dir, wide, monkeypatch):
    sure = []
    for evals in (5, 50):
        jobs = landscape(monkeypatch, by_tunables)
        search(some_settings(tmp_path / str(evals), cache_dir, wide, evals=evals))
        sure += {job.timing.confidence for job in jobs if job.purpose == "confirm"}
    assert sure == [pytest.approx(1 - 0.01 / 5), pytest.approx(1 - 0.01 / 50)]


def test_a_candidate_that_fails_its_second_look_is_not_the_best(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    def speedup(job):
        if job.purpose == "confirm" and job.candidate.tunables["BLOCK"] == 16:
            return a_failed(job.candidate, "check", purpose="confirm", target=job.target.digest)
        return {16: 9.0, 32: 1.2, 64: 1.1}[job.candidate.tunables["BLOCK"]]

    landscape(monkeypatch, speedup)
    result, _ = search(some_settings(tmp_path, cache_dir, tiny_target_folder))
    assert result.best.candidate.tunables["BLOCK"] != 16
    assert isinstance(result.best.evaluation, Passed)


def test_where_everything_fails_there_is_no_best(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    landscape(monkeypatch, lambda job: a_failed(job.candidate, "build", target=job.target.digest))
    result, _ = search(some_settings(tmp_path, cache_dir, tiny_target_folder))
    assert (result.best, result.evaluated, result.failed) == (None, 3, 3)


class Illegible(ScriptedProposer):
    """Proposes a kernel without an entry point between two right ones."""

    class Config(Record):
        pass

    def __init__(self, config, *, seed, models):
        good = [
            a_proposal(files={"main.cpp": kernel(SCALE, f"static int number = {i};")}, tunables={}) for i in range(3)
        ]
        super().__init__([good[0], a_proposal(files={"main.cpp": "int nothing;"}, tunables={}), *good[1:]])


def test_a_proposal_that_does_not_parse_is_stored_and_counted(tmp_path, cache_dir, tiny_target_folder, monkeypatch):
    landscape(monkeypatch, by_tunables)
    propose_with(monkeypatch, "test_search:Illegible")
    settings = some_settings(tmp_path, cache_dir, tiny_target_folder, proposer="scripted")
    result, run = search(settings)
    assert (result.evaluated, result.failed) == (3, 1)
    step = run.steps[1]
    assert step.candidate is None
    assert (step.evaluation.stage, step.evaluation.diagnostics[0].kind) == ("parse", "parse")
    assert step.evaluation.diagnostics[0].advice


@pytest.mark.parametrize("workers", [1, 3])
def test_progress_is_told_in_order(workers, tmp_path, cache_dir, wide, monkeypatch):
    landscape(monkeypatch, by_tunables)
    heard = []
    result, run = search(some_settings(tmp_path, cache_dir, wide, evals=12, workers=workers), heard.append)
    stages = [progress.stage for progress in heard]
    assert (stages[0], stages[-1]) == ("calibrating", "done")
    assert stages.count("calibrating") == stages.count("done") == 1
    counts = [progress.evaluated for progress in heard]
    assert counts == sorted(counts)
    assert counts[-1] == heard[-1].budget == 12
    assert all(progress.in_flight <= workers for progress in heard)
    best = [progress.best.fitness for progress in heard if progress.best]
    assert best == sorted(best)
    assert heard[-1].best == result.best.evaluation
    confirmed = {c.fitness for step in run.steps for c in step.confirmations}
    assert set(best) <= confirmed


def test_a_target_without_a_workload_for_this_machine_says_so(tmp_path, cache_dir, tiny_target_folder):
    toml = (tiny_target_folder / "tiny" / "target.toml").read_text()
    folder = variant(tiny_target_folder, tmp_path, "far", {"target.toml": toml.replace('"cpu"', '"gpu"')})
    settings = some_settings(tmp_path, cache_dir, folder)
    with pytest.raises(UsageError, match="no search workload for a cpu"):
        Session.start(settings, "tiny")
    assert not settings.runs.exists()
