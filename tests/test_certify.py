"""Certification lets through what wins on shapes that the search never showed, and stores what doesn't."""

import pytest
from searching import (
    QUICKLY,
    SLOW_BASELINE,
    SLOWLY,
    judge_here,
    kernel,
    landscape,
    some_settings,
    variant,
)

from kernelevolve import hardware, targets
from kernelevolve.catalog import Catalog
from kernelevolve.certify import Subject, certify
from kernelevolve.runs import Runs
from kernelevolve.schema import Candidate, Entry, Lineage, Refused, Run
from kernelevolve.search import Session
from kernelevolve.store import SqlStore
from kernelevolve.testing.records import a_failed, a_measurement, a_passed, a_run_spec
from kernelevolve.testing.registry_records import an_entry

HELD_OUT = {"cpu-64x300", "cpu-16x300"}


def a_candidate(body):
    return Candidate(language="cpp", files={"main.cpp": kernel(body)}, lineage=Lineage(origin="main"))


@pytest.fixture
def settings(tiny_target_folder, tmp_path, cache_dir):
    """Settings whose target has a slow baseline."""
    folder = variant(tiny_target_folder, tmp_path, "sure", {"baselines.py": SLOW_BASELINE})
    return some_settings(tmp_path, cache_dir, folder, evals=1)


@pytest.fixture
def certified(settings, monkeypatch):
    """Certify a kernel with this body."""
    judge_here(monkeypatch)
    machine = hardware.measured(None, 1, settings.cache)
    spec = a_run_spec(target=targets.load("tiny", settings.targets), hardware=machine, threads=1)
    return lambda body: certify(a_candidate(body), Subject.of(Run(spec=spec)), settings)


def test_a_winner_becomes_an_entry_with_its_domain_and_evidence(certified):
    entry = certified(QUICKLY)
    assert isinstance(entry, Entry)
    assert {m.workload for m in entry.evidence} == {"cpu-64x512", "cpu-16x512"} | HELD_OUT
    assert {m.verdict for m in entry.evidence} == {"faster"}
    (box,) = entry.domain
    assert box.axes == {"rows": (16, 64), "n": (300, 512)}
    assert box.dtypes == {"T": "float32"}
    assert entry.candidate == a_candidate(QUICKLY)
    assert entry.provenance.run == a_run_spec().run
    assert entry.environment.threads == 1


def test_losses_are_kept_as_evidence_and_not_served(certified):
    lagging = f"if (n == 300) {{ for (volatile int i = 0; i < 2000000; i = i + 1); }} {QUICKLY}"
    entry = certified(lagging)
    assert isinstance(entry, Entry)
    assert {m.workload for m in entry.evidence if m.verdict == "slower"} == HELD_OUT
    (box,) = entry.domain
    assert box.axes["n"] == (512, 512)


def test_a_kernel_that_wins_nowhere_is_refused(certified):
    refused = certified(f"for (volatile int i = 0; i < 2000000; i = i + 1); {SLOWLY}")
    assert isinstance(refused, Refused)
    assert refused.reason == "no_win"
    assert {m.workload for m in refused.evaluation.measurements} > HELD_OUT


def test_a_kernel_that_knows_the_search_shapes_by_heart_is_refused(certified):
    by_heart = f"if (n != 512 && rows * n > 64) return; {QUICKLY}"
    refused = certified(by_heart)
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.evaluation.stage) == ("failed", "check")
    assert {d.workload for d in refused.evaluation.diagnostics} == HELD_OUT
    assert "check" in refused.message


VERDICTS = {"faster": (1.4, 1.6), "ambiguous": (0.9, 1.3), "slower": (0.7, 0.8)}


@pytest.fixture
def measured(settings, monkeypatch):
    """Certify on a landscape that says what each look at each workload gives; the outcome and the looks."""

    def measure(*looks):
        left = list(looks)

        def answer(job):
            said = left.pop(0)
            if not isinstance(said, dict):
                return said
            found = tuple(
                a_measurement(
                    workload=name, verdict=said[name], low=low, high=high, axes={"n": list(FIRST).index(name)}
                )
                for name in job.workloads
                for low, high in [VERDICTS[said[name]]]
            )
            return a_passed(job.candidate, purpose=job.purpose, target=job.target.digest, measurements=found)

        jobs = landscape(monkeypatch, answer)
        monkeypatch.setattr("kernelevolve.certify.EXECUTORS", Catalog("executors", {"local": "searching:Landscape"}))
        spec = a_run_spec(target=targets.load("tiny", settings.targets))
        return certify(a_candidate(QUICKLY), Subject.of(Run(spec=spec)), settings), jobs

    return measure


FIRST = {"cpu-64x512": "faster", "cpu-16x512": "ambiguous", "cpu-64x300": "slower", "cpu-16x300": "ambiguous"}


def test_what_stays_ambiguous_is_measured_once_more_and_longer(measured):
    entry, (first, again) = measured(FIRST, {"cpu-16x512": "faster", "cpu-16x300": "ambiguous"})
    assert again.workloads == ("cpu-16x512", "cpu-16x300")
    assert again.timing.max_pairs > first.timing.max_pairs
    assert again.timing.seconds > first.timing.seconds
    said = {m.workload: m.verdict for m in entry.evidence}
    assert said == {**FIRST, "cpu-16x512": "faster"}
    assert list(said) == list(FIRST)
    (box,) = entry.domain
    assert box.axes == {"n": (0, 1)}, "what is still ambiguous is no win"


def test_a_clear_result_is_measured_once(measured):
    _, jobs = measured(dict.fromkeys(FIRST, "faster"))
    assert len(jobs) == 1
    assert jobs[0].timing.confidence == pytest.approx(1 - 0.01 / (2 * len(FIRST))), "all verdicts hold together"


def test_a_candidate_that_fails_when_it_is_measured_again_has_failed(measured):
    refused, _ = measured(FIRST, a_failed(a_candidate(QUICKLY), "time", purpose="certify"))
    assert isinstance(refused, Refused)
    assert refused.reason == "failed"


@pytest.fixture
def concluded(settings, monkeypatch):
    """Search on a landscape, conclude with this outcome: its run, and what the store has of certifications."""

    def conclude(outcome):
        landscape(monkeypatch, lambda _: 2.0)
        session = Session.start(settings, "tiny")
        session.run(lambda _: None)
        session.conclude(outcome, "a word on it")
        with SqlStore.open(Runs(settings.runs).database, read_only=True) as store:
            return store.run(session.spec.run), store.evaluations(session.spec.run, "certify")

    return conclude


def test_a_refusal_is_stored_with_its_measurements(concluded):
    failed = a_failed(a_candidate(QUICKLY), "check", purpose="certify")
    refused = Refused(candidate=failed.candidate, reason="failed", message="wrong at n = 300", evaluation=failed)
    run, kept = concluded(refused)
    assert (run.events[-1].kind, run.events[-1].detail) == ("refused", "a word on it")
    assert kept == (failed,)


def test_a_certificate_is_an_event_of_the_run(concluded):
    run, kept = concluded(an_entry())
    assert (run.events[-1].kind, run.events[-1].detail) == ("certified", "a word on it")
    assert kept == ()
