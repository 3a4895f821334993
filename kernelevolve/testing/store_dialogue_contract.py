"""What every store must do with questions to models and with the order of things; part of `StoreContract`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernelevolve.errors import StoreError, UsageError
from kernelevolve.schema import Ask, Attempt, Bottleneck, Brief, Document, Parent
from kernelevolve.store import Answered, Asked, Declined, Judged, Store, UnknownRunError
from kernelevolve.testing.dialogue import a_reply, a_request, an_exchange, no_reply
from kernelevolve.testing.landscape import a_brief, a_seed
from kernelevolve.testing.records import a_candidate, a_failed, a_passed, a_proposal, a_run_spec

SPEC = a_run_spec()
RUN = SPEC.run


def a_full_brief(step: int = 0) -> Brief:
    """A brief in which nothing is left out."""
    brief = a_brief(step, "rewrite", (Parent(candidate=a_candidate(), evaluation=a_passed()),), (a_seed("plain"),))
    attempt = Attempt(candidate=a_candidate().digest, change="draft", label="main.cpp BLOCK=8", outcome="passed")
    return brief.model_copy(
        update={
            "memory": "inherit",
            "bottleneck": Bottleneck(name="memory", message="reads everything twice; ünïcode"),
            "history": (attempt,),
            "documents": (Document(path="guidance/tiling.md", title="Tiling", text="Tile it.\n"),),
            "baseline_us": {"n1024": 15.0},
        }
    )


class StoreDialogueContract(ABC):
    """The suite. See `StoreContract`, which includes it."""

    @abstractmethod
    def make_store(self, folder: Path) -> Store:
        """A store that keeps its data in `folder`: a new one, or the one that is there."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        """A store that holds one run without steps."""
        with self.make_store(tmp_path) as store:
            store.create_run(SPEC)
            yield store

    def test_briefs_and_exchanges_are_read_back_as_they_were_written(self, tmp_path: Path) -> None:
        """By step, then by attempt; also after the store was closed."""
        first = (an_exchange(0, 0, answer=no_reply()), an_exchange(0, 1, answer=a_reply("ünïcode", stop="length")))
        with self.make_store(tmp_path) as store:
            store.create_run(SPEC)
            store.add_ask(RUN, 0, a_full_brief(0))
            store.add_ask(RUN, 1, a_brief(1))
            for exchange in first:
                store.add_exchange(RUN, 0, exchange)
        with self.make_store(tmp_path) as store:
            assert store.asks(RUN) == (
                Ask(number=0, brief=a_full_brief(0), exchanges=first),
                Ask(number=1, brief=a_brief(1)),
            )
            assert store.asks(RUN)[0].brief.digest == a_full_brief(0).digest
            assert store.asks(RUN)[0].exchanges[1].request.digest == a_request(0, 1).digest

    def test_a_step_is_asked_for_once_and_each_attempt_answered_once(self, store: Store) -> None:
        """Nothing that is there gets replaced, and an answer needs its ask."""
        with pytest.raises(StoreError):
            store.add_exchange(RUN, 0, an_exchange())
        store.add_ask(RUN, 0, a_brief())
        store.add_exchange(RUN, 0, an_exchange())
        with pytest.raises(StoreError):
            store.add_ask(RUN, 0, a_brief(0, "rewrite"))
        with pytest.raises(StoreError):
            store.add_exchange(RUN, 0, an_exchange(answer=a_reply("another")))
        assert store.asks(RUN) == (Ask(number=0, brief=a_brief(), exchanges=(an_exchange(),)),)

    def test_a_step_that_was_only_asked_for_has_no_proposal(self, store: Store) -> None:
        """It appears among the steps once there is one."""
        store.add_ask(RUN, 0, a_brief())
        assert store.run(RUN).steps == ()
        store.add_proposal(RUN, 0, a_proposal(), a_candidate())
        assert [step.number for step in store.run(RUN).steps] == [0]

    def test_arrivals_come_in_the_order_in_which_they_were_added(self, tmp_path: Path) -> None:
        """Of one run, whatever their steps; certification is no part of a search."""
        confirmed = a_passed(purpose="confirm")
        with self.make_store(tmp_path) as store:
            store.create_run(SPEC)
            store.create_run(a_run_spec("another"))
            for number in (0, 1):
                store.add_ask(RUN, number, a_brief(number))
            store.add_ask("another", 0, a_brief())
            store.add_exchange(RUN, 1, an_exchange(1))
            store.add_proposal(RUN, 1, a_proposal(), a_candidate())
            store.add_exchange(RUN, 0, an_exchange(0))
            store.add_evaluation(RUN, 1, a_passed())
            store.add_decline(RUN, 2)
            store.add_exchange(RUN, 0, an_exchange(0, 1))
            store.add_evaluation(RUN, 1, a_passed(purpose="certify"))
            store.add_evaluation(RUN, 1, confirmed)
            store.add_proposal(RUN, 0, a_proposal(), None)
            store.add_evaluation(RUN, 0, a_failed(stage="parse"))
        with self.make_store(tmp_path) as store:
            assert store.arrivals(RUN) == (
                Asked(number=0),
                Asked(number=1),
                Answered(number=1, attempt=0),
                Answered(number=0, attempt=0),
                Judged(number=1, evaluation=a_passed()),
                Declined(number=2),
                Answered(number=0, attempt=1),
                Judged(number=1, evaluation=confirmed),
                Judged(number=0, evaluation=a_failed(stage="parse")),
            )
            assert store.arrivals("another") == (Asked(number=0),)

    def test_what_differs_in_comments_alone_is_found_where_that_is_asked_for(self, store: Store) -> None:
        """The same kernel under another digest."""
        known = a_candidate()
        commented = a_candidate(files={"main.cpp": "// faster\n" + known.files["main.cpp"]})
        store.add_proposal(RUN, 0, a_proposal(known), known)
        store.add_evaluation(RUN, 0, a_passed(known))
        target, key = SPEC.target.digest, SPEC.hardware.key
        assert store.find_evaluation(target, key, commented.code) is None
        assert store.find_evaluation(target, key, commented.code, normal=commented.normal) == a_passed(known)
        other = a_candidate(tunables={"BLOCK": 16})
        assert store.find_evaluation(target, key, other.code, normal=other.normal) is None

    def test_a_question_is_open_until_it_is_answered(self, store: Store, tmp_path: Path) -> None:
        """By another process; what was answered stays."""
        questions = (a_request(0), a_request(2), a_request(2, 1))
        for request in reversed(questions):
            store.add_question(RUN, request)
        assert store.open_questions(RUN) == questions
        assert store.find_answer(RUN, 2, 1) is None
        with self.make_store(tmp_path) as other:
            other.add_answer(RUN, 2, 1, a_reply("mine"))
        assert store.open_questions(RUN) == questions[:2]
        assert store.find_answer(RUN, 2, 1) == a_reply("mine")
        assert store.find_answer(RUN, 2, 0) is None

    def test_the_same_question_may_be_opened_again_and_another_in_its_place_not(self, store: Store) -> None:
        """A resumed search asks again for what is still missing, and finds what was answered meanwhile."""
        for _ in range(2):
            store.add_question(RUN, a_request())
        with pytest.raises(StoreError, match="another text"):
            store.add_question(RUN, a_request(prompt="something else"))
        store.add_answer(RUN, 0, 0, no_reply(reason="skipped"))
        store.add_question(RUN, a_request())
        assert store.open_questions(RUN) == ()
        assert store.find_answer(RUN, 0, 0) == no_reply(reason="skipped")

    def test_only_an_open_question_can_be_answered(self, store: Store) -> None:
        """Not one that was never asked, nor one that has its answer, nor one that the search has closed."""
        with pytest.raises(UsageError, match="never asked"):
            store.add_answer(RUN, 0, 0, a_reply())
        store.add_ask(RUN, 0, a_brief())
        for attempt in (0, 1):
            store.add_question(RUN, a_request(0, attempt))
        store.add_exchange(RUN, 0, an_exchange(0, 1, answer=no_reply(reason="skipped")))
        with pytest.raises(UsageError, match="closed"):
            store.add_answer(RUN, 0, 1, a_reply())
        assert store.open_questions(RUN) == (a_request(0),)
        store.add_answer(RUN, 0, 0, a_reply())
        with pytest.raises(UsageError, match="already"):
            store.add_answer(RUN, 0, 0, a_reply("better"))
        assert store.find_answer(RUN, 0, 0) == a_reply()

    def test_an_unknown_run_has_no_questions(self, store: Store) -> None:
        """For reading as for writing, with close names."""
        typo = RUN.replace("double", "doubel")
        attempts: tuple[Callable[[], object], ...] = (
            lambda: store.asks(typo),
            lambda: store.arrivals(typo),
            lambda: store.open_questions(typo),
            lambda: store.find_answer(typo, 0, 0),
            lambda: store.add_ask(typo, 0, a_brief()),
            lambda: store.add_decline(typo, 0),
            lambda: store.add_exchange(typo, 0, an_exchange()),
            lambda: store.add_question(typo, a_request()),
            lambda: store.add_answer(typo, 0, 0, a_reply()),
        )
        for attempt in attempts:
            with pytest.raises(UnknownRunError, match="doubel") as caught:
                attempt()
            assert RUN in caught.value.remedy
