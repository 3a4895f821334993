from example_run import a_long_run, a_run, an_entry, retuned, step

from kernelevolve.cli.summary import (
    ancestor,
    at,
    best_of,
    certification_of,
    command_again,
    failures,
    history,
    marks,
    most_frequent_baseline,
)
from kernelevolve.testing.records import a_candidate, a_failed, a_measurement, a_passed, a_run_spec, an_event


def test_a_confirmation_replaces_the_figure_it_looked_at_again():
    best = best_of(a_run().steps)
    assert best is not None
    assert (best.step, best.confirmed) == (2, True)
    assert round(best.passed.speedup, 2) == 1.5


def test_a_candidate_that_fails_its_confirmation_is_not_the_best():
    seed = a_candidate()
    lucky = retuned(seed, 16)
    failed = step(1, lucky, 3.0).model_copy(update={"confirmations": (a_failed(lucky, purpose="confirm"),)})
    best = best_of((step(0, seed, 1.2), failed))
    assert best is not None
    assert best.step == 0


def test_a_best_whose_interval_stayed_wide_gives_way_as_it_does_in_the_search():
    noisy, sure = a_candidate(), retuned(a_candidate(), 16)
    wide = a_measurement(1.75, low=0.3, high=5.3, verdict="ambiguous")
    looked = a_passed(noisy, purpose="confirm", measurements=(wide,))
    first = step(0, noisy, 1.75).model_copy(update={"confirmations": (looked,)})
    best = best_of((first, step(1, sure, 2.4, confirmed=2.4)))
    assert best is not None
    assert best.step == 1
    again = first.model_copy(update={"confirmations": (a_passed(noisy, 2.45, purpose="confirm"), looked)})
    best = best_of((again, step(1, sure, 2.4, confirmed=2.4)))
    assert best is not None
    assert best.step == 0, "of several looks the surest counts"


def test_nothing_passed_means_no_best():
    assert best_of((step(0, a_candidate(), None),)) is None


def test_the_history_has_one_point_for_each_finished_evaluation():
    found = [None if best is None else best.step for best in history(a_run())]
    assert found == [0, 0, 2, 2]


def test_failures_are_grouped_by_stage_and_kind():
    (group,) = failures(a_run())
    assert (group.stage, group.kind, group.count) == ("build", "compile", 1)
    assert "expected ';'" in group.example.message


def test_the_ancestor_is_the_seed_that_the_line_began_with():
    run = a_run()
    assert ancestor(run, run.steps[3].candidate) == run.steps[0].candidate


def test_the_command_names_everything_that_decides_a_run():
    command = command_again(a_run_spec(minutes=2.5))
    assert command.startswith("kernelevolve search double --evals 10 --seed 0 --minutes 2.5")
    assert "--policy random" in command
    assert "--hardware test-cpu-2c" in command
    assert "--no-" not in command
    compared = command_again(a_run_spec(tuning=0.0, knowledge=False, diagnostics=False))
    assert compared.endswith("--tuning 0 --no-knowledge --no-diagnostics")


def test_runs_are_compared_after_the_same_numbers_of_evaluations():
    short, long = a_run(), a_long_run(60)
    numbers = marks((short, long))
    assert numbers == (1, 2, 4, 5, 10, 20, 50, 60)
    found = at(short, numbers)
    assert [(m.evaluations, m.best.step if m.best else None) for m in found] == [(1, 0), (2, 0), (4, 2)]
    assert marks(()) == ()


def test_what_a_mind_answered_is_counted_apart_from_the_tuners():
    run = a_run()
    asked = run.steps[2].model_copy(update={"proposal": run.steps[2].proposal.model_copy(update={"model": "agent"})})
    mixed = run.model_copy(update={"steps": (*run.steps[:2], asked, *run.steps[3:])})
    assert [m.answered for m in at(mixed, (2, 3, 4))] == [0, 1, 1]


def test_an_entry_of_the_run_is_its_certification():
    run = a_run()
    entry = an_entry(run.spec.run, run.steps[2].candidate)
    assert certification_of(run, (), [an_entry("another", a_candidate()), entry]).measurements == entry.evidence
    assert certification_of(run, (), [an_entry("another", a_candidate())]).verdict == "none"


def test_a_refusal_is_read_from_the_events_and_the_evaluations():
    run = a_run(events=(an_event(), an_event("refused", detail="slower on n2048")))
    found = certification_of(run, (a_passed(speedup=0.9, purpose="certify"),), ())
    assert (found.verdict, found.message) == ("refused", "slower on n2048")
    assert round(found.measurements[0].speedup, 2) == 0.9


def test_the_most_frequent_baseline_is_named():
    assert most_frequent_baseline(["eager", "compiled", "compiled"]) == "compiled"
    assert most_frequent_baseline([]) == ""
