"""What every store must do. Subclass `StoreContract`, say how to make one, and let pytest collect it.

::

    class TestMyStore(StoreContract):
        def make_store(self, folder: Path) -> Store:
            return MyStore.open(folder / "store")
"""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from kernelevolve.errors import StoreError
from kernelevolve.schema import Evaluation, Purpose, Run, Step
from kernelevolve.store import Store, UnknownRunError
from kernelevolve.testing.records import (
    a_calibration,
    a_candidate,
    a_failed,
    a_hardware,
    a_passed,
    a_proposal,
    a_run_spec,
    a_target,
    an_event,
)
from kernelevolve.testing.store_dialogue_contract import RUN, SPEC, StoreDialogueContract

OTHER = "double-20260102-030406-0002"


class StoreContract(StoreDialogueContract):
    """The suite. `make_store` may be called again with the same folder, and must then find the same data."""

    def test_a_new_store_is_empty(self, tmp_path: Path) -> None:
        """No runs, and no error."""
        with self.make_store(tmp_path) as store:
            assert store.specs() == ()
            assert store.summaries() == ()

    def test_a_run_is_read_back_as_it_was_written(self, tmp_path: Path) -> None:
        """Every record equals the one that went in, also after the store was closed."""
        good, bad = a_candidate(), a_candidate(tunables={"BLOCK": 16})
        unparsed = a_proposal(files={"main.cpp": "no kernel; ünïcode \N{SNOWMAN}\r\n"}, answer="I'd rather not.")
        written = Run(
            spec=SPEC,
            calibration=a_calibration(),
            steps=(
                Step(number=0, proposal=a_proposal(good), candidate=good, evaluation=a_passed(good)),
                Step(number=1, proposal=a_proposal(bad), candidate=bad, evaluation=a_failed(bad)),
                Step(number=2, proposal=unparsed, evaluation=a_failed(stage="parse")),
            ),
            events=(an_event("started"), an_event("finished", detail="all done")),
        )
        with self.make_store(tmp_path) as store:
            store.create_run(SPEC)
            store.add_event(RUN, written.events[0])
            store.add_calibration(RUN, a_calibration())
            for step in written.steps:
                store.add_proposal(RUN, step.number, step.proposal, step.candidate)
                assert step.evaluation is not None
                store.add_evaluation(RUN, step.number, step.evaluation)
            store.add_event(RUN, written.events[1])
        with self.make_store(tmp_path) as store:
            assert store.run(RUN) == written
            assert store.run(RUN).spec.digest == SPEC.digest

    def test_mappings_keep_their_order(self, store: Store) -> None:
        """Axes and files are read in the order in which they were written."""
        files = {"z.cpp": "// last letter first", "a.h": "// then the header"}
        store.add_proposal(RUN, 0, a_proposal(files=files), None)
        assert list(store.run(RUN).steps[0].proposal.files) == ["z.cpp", "a.h"]

    def test_steps_come_by_number_however_they_were_added(self, store: Store) -> None:
        """Workers finish in any order."""
        for number in (2, 0, 1):
            store.add_proposal(RUN, number, a_proposal(), a_candidate())
        store.add_evaluation(RUN, 1, a_passed(speedup=1.1))
        store.add_evaluation(RUN, 0, a_passed(speedup=1.2))
        steps = store.run(RUN).steps
        assert [step.number for step in steps] == [0, 1, 2]
        assert [step.evaluation for step in steps] == [a_passed(speedup=1.2), a_passed(speedup=1.1), None]

    def test_a_step_without_evaluation_is_under_way(self, store: Store) -> None:
        """The proposal is there before the judge has said anything."""
        store.add_proposal(RUN, 0, a_proposal(), a_candidate())
        assert store.run(RUN).steps == (Step(number=0, proposal=a_proposal(), candidate=a_candidate()),)

    def test_the_same_candidate_may_come_up_twice(self, store: Store) -> None:
        """In one run and across runs."""
        store.create_run(a_run_spec(OTHER))
        for run, number in ((RUN, 0), (RUN, 1), (OTHER, 0)):
            store.add_proposal(run, number, a_proposal(), a_candidate())
        assert [step.candidate for step in store.run(RUN).steps] == [a_candidate()] * 2

    def test_a_step_is_searched_once(self, store: Store) -> None:
        """A second evaluation for the search is refused; the first one stays."""
        store.add_proposal(RUN, 0, a_proposal(), a_candidate())
        store.add_evaluation(RUN, 0, a_passed(speedup=1.5))
        with pytest.raises(StoreError):
            store.add_evaluation(RUN, 0, a_passed(speedup=9.0))
        assert store.evaluations(RUN, "search") == (a_passed(speedup=1.5),)

    def test_a_step_is_confirmed_as_often_as_one_likes(self, store: Store) -> None:
        """Confirmations are kept in order; certifying evaluations are kept apart from them."""
        store.add_proposal(RUN, 0, a_proposal(), a_candidate())
        purposes: tuple[Purpose, ...] = ("search", "confirm", "certify", "confirm", "certify")
        said = [a_passed(speedup=1.5 + i / 10, purpose=purpose) for i, purpose in enumerate(purposes)]
        for evaluation in said:
            store.add_evaluation(RUN, 0, evaluation)
        (step,) = store.run(RUN).steps
        assert step.evaluation == said[0]
        assert step.confirmations == (said[1], said[3])
        assert store.evaluations(RUN, "certify") == (said[2], said[4])

    def test_a_run_and_a_step_are_begun_once(self, store: Store) -> None:
        """Nothing that is there gets replaced."""
        store.add_proposal(RUN, 0, a_proposal(), a_candidate())
        with pytest.raises(StoreError):
            store.create_run(a_run_spec(seed=7))
        with pytest.raises(StoreError):
            store.add_proposal(RUN, 0, a_proposal(answer="another"), None)
        assert store.run(RUN) == Run(spec=SPEC, steps=(Step(number=0, proposal=a_proposal(), candidate=a_candidate()),))

    def test_what_belongs_to_a_step_needs_the_step(self, store: Store) -> None:
        """An evaluation or a statistic of a step that nobody began is refused."""
        with pytest.raises(StoreError):
            store.add_evaluation(RUN, 0, a_passed())
        with pytest.raises(StoreError):
            store.add_statistics(RUN, 0, {"population": 1.0})

    def test_an_unknown_run_is_refused_with_close_names(self, store: Store) -> None:
        """For reading as for writing."""
        typo = RUN.replace("double", "doubel")
        for attempt in (
            lambda: store.run(typo),
            lambda: store.statistics(typo),
            lambda: store.evaluations(typo, "search"),
            lambda: store.add_proposal(typo, 0, a_proposal(), None),
            lambda: store.add_evaluation(typo, 0, a_passed()),
            lambda: store.add_calibration(typo, a_calibration()),
            lambda: store.add_event(typo, an_event()),
            lambda: store.add_statistics(typo, 0, {}),
        ):
            with pytest.raises(UnknownRunError, match="doubel") as caught:
                attempt()
            assert RUN in caught.value.remedy

    def test_the_latest_calibration_counts(self, store: Store) -> None:
        """A resumed run measures its baselines anew."""
        store.add_calibration(RUN, a_calibration())
        store.add_calibration(RUN, a_calibration(times={}))
        assert store.run(RUN).calibration == a_calibration(times={})

    def test_specs_and_summaries_come_newest_first(self, store: Store) -> None:
        """By the time at which the run was created."""
        older = a_run_spec("older", created_at="2025-12-31T23:59:59+00:00")
        newer = a_run_spec("newer", created_at="2026-01-03T00:00:00+00:00")
        store.create_run(newer)
        store.create_run(older)
        assert store.specs() == (newer, SPEC, older)
        assert [summary.run for summary in store.summaries()] == ["newer", RUN, "older"]

    def test_statistics_come_by_step_and_name(self, store: Store) -> None:
        """A name may come back at every step, but not twice at one."""
        for number in (0, 1):
            store.add_proposal(RUN, number, a_proposal(), None)
        store.add_statistics(RUN, 1, {"size": 2.0})
        store.add_statistics(RUN, 0, {"size": 1.0, "coverage": 0.25})
        with pytest.raises(StoreError):
            store.add_statistics(RUN, 1, {"other": 1.0, "size": 3.0})
        rows = [(s.number, s.name, s.value) for s in store.statistics(RUN)]
        assert rows == [(0, "coverage", 0.25), (0, "size", 1.0), (1, "size", 2.0)]

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_statistic_is_a_finite_number(self, store: Store, value: float) -> None:
        """Nothing stands in for a number that isn't there."""
        store.add_proposal(RUN, 0, a_proposal(), None)
        with pytest.raises(StoreError, match="spread"):
            store.add_statistics(RUN, 0, {"size": 1.0, "spread": value})
        assert store.statistics(RUN) == ()

    def test_a_summary_counts_what_the_search_did(self, store: Store) -> None:
        """Confirmations and certification are no part of the budget."""
        said: tuple[Evaluation, ...] = (a_passed(speedup=1.2), a_failed(), a_failed(stage="parse"))
        for number, evaluation in enumerate(said):
            store.add_proposal(RUN, number, a_proposal(), a_candidate())
            store.add_evaluation(RUN, number, evaluation)
        store.add_proposal(RUN, 3, a_proposal(), a_candidate())
        store.add_evaluation(RUN, 0, a_passed(speedup=9.0, purpose="certify"))
        store.add_event(RUN, an_event("started"))
        store.add_event(RUN, an_event("interrupted"))
        (summary,) = store.summaries()
        assert (summary.target, summary.hardware_key, summary.evals) == ("double", a_hardware().key, 10)
        assert (summary.evaluated, summary.failed) == (3, 2)
        assert summary.best == pytest.approx(a_passed(speedup=1.2).fitness)
        assert summary.last_event == "interrupted"

    def test_a_failure_has_no_score(self, store: Store) -> None:
        """A run in which everything failed has no best, and neither has an empty one."""
        assert store.summaries()[0].best is None
        store.add_proposal(RUN, 0, a_proposal(), a_candidate())
        store.add_evaluation(RUN, 0, a_failed(a_candidate(), "check"))
        (summary,) = store.summaries()
        assert (summary.best, summary.failed) == (None, 1)

    def test_a_confirmation_replaces_the_fitness_that_it_looked_at_again(self, store: Store) -> None:
        """A lucky measurement doesn't stay the best."""
        for number, speedup in enumerate((1.3, 3.0)):
            store.add_proposal(RUN, number, a_proposal(), a_candidate())
            store.add_evaluation(RUN, number, a_passed(speedup=speedup))
        store.add_evaluation(RUN, 1, a_passed(speedup=1.1, purpose="confirm"))
        assert store.summaries()[0].best == pytest.approx(a_passed(speedup=1.3).fitness)
        store.add_evaluation(RUN, 0, a_failed(purpose="confirm"))
        assert store.summaries()[0].best == pytest.approx(a_passed(speedup=1.1).fitness)

    def test_an_evaluation_is_found_again_by_its_code(self, store: Store) -> None:
        """From another run too, failed or passed; what was confirmed or is under way doesn't count."""
        done, dead, open_ = (a_candidate(tunables={"BLOCK": block}) for block in (8, 16, 32))
        for number, candidate in enumerate((done, dead, open_)):
            store.add_proposal(RUN, number, a_proposal(candidate), candidate)
        store.add_evaluation(RUN, 0, a_passed(done))
        store.add_evaluation(RUN, 0, a_passed(done, speedup=4.0, purpose="confirm"))
        store.add_evaluation(RUN, 1, a_failed(dead))
        target, key = a_target().digest, a_hardware().key
        twin = a_candidate(lineage={"change": "retune", "parents": (dead.digest,)})
        assert twin.digest != done.digest
        assert store.find_evaluation(target, key, twin.code) == a_passed(done)
        assert store.find_evaluation(target, key, dead.code) == a_failed(dead)
        assert store.find_evaluation(target, key, open_.code) is None

    def test_an_evaluation_holds_only_where_it_was_made(self, store: Store) -> None:
        """Another target, another machine or another number of threads is another question."""
        store.add_proposal(RUN, 0, a_proposal(), a_candidate())
        store.add_evaluation(RUN, 0, a_passed(a_candidate()))
        target, key, code = a_target().digest, a_hardware().key, a_candidate().code
        other = a_target(summary="Twice as much.").digest
        assert store.find_evaluation(target, key, code, threads=SPEC.threads) is not None
        assert store.find_evaluation(target, key, code, threads=SPEC.threads + 1) is None
        assert store.find_evaluation(target, "another-cpu", code) is None
        assert store.find_evaluation(other, key, code) is None

    def test_objects_come_back_by_digest(self, store: Store) -> None:
        """Any bytes, also none; the same bytes have the same digest."""
        for data in (b"", b"\x00\xff" * 5000, "a log ünïcode".encode()):
            digest = store.put_object(data)
            assert store.put_object(data) == digest
            assert store.get_object(digest) == data

    def test_an_unknown_object_is_refused(self, store: Store) -> None:
        """With its digest in the message."""
        with pytest.raises(StoreError, match="0" * 64):
            store.get_object("0" * 64)

    def test_one_thread_writes_while_others_read(self, store: Store) -> None:
        """A reader sees whole steps only, and never fewer than before."""
        written = Event()

        def write() -> None:
            try:
                for number in range(12):
                    candidate = a_candidate(tunables={"BLOCK": number})
                    store.add_proposal(RUN, number, a_proposal(candidate), candidate)
                    store.add_evaluation(RUN, number, a_passed(candidate))
            finally:
                written.set()

        def read() -> list[int]:
            seen = [0]
            while not written.is_set():
                steps = store.run(RUN).steps
                assert all(step.evaluation is not None for step in steps[:-1])
                seen.append(sum(step.evaluation is not None for step in steps))
            return seen

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            pool.submit(write).result(timeout=60)
            for reader in readers:
                seen = reader.result(timeout=60)
                assert seen == sorted(seen)

    def test_two_openings_share_what_is_written(self, store: Store, tmp_path: Path) -> None:
        """What one added, the other sees at once."""
        with self.make_store(tmp_path) as other:
            other.add_proposal(RUN, 0, a_proposal(), a_candidate())
            store.add_evaluation(RUN, 0, a_passed())
            assert other.run(RUN).steps[0].evaluation == a_passed()
