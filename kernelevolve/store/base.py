"""The seam of the store: runs, their steps and evaluations, insert-only."""

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from pydantic import Field

from kernelevolve.errors import StoreError, UnknownNameError
from kernelevolve.schema import (
    Answer,
    Ask,
    Brief,
    Calibration,
    Candidate,
    Evaluation,
    Event,
    EventKind,
    Exchange,
    ModelRequest,
    Proposal,
    Purpose,
    Record,
    Run,
    RunSpec,
)


class UnknownRunError(StoreError, UnknownNameError):
    """A run that the store doesn't hold; like every unknown name, it is the asker's slip (exit code 2)."""


class Statistic(Record):
    """One number that a policy reported at one step."""

    number: int = Field(description="of the step")
    name: str
    value: float


class RunSummary(Record):
    """A line in the list of runs."""

    run: str
    target: str = Field(description="name of the target")
    hardware_key: str
    created_at: str = Field(description="UTC, ISO 8601")
    evals: int = Field(description="total budget of evaluations")
    evaluated: int = Field(description="finished evaluations of the search, failed ones included")
    failed: int
    best: float | None = Field(
        description="highest fitness, a confirmation replacing the fitness that it looked at again; "
        "None while nothing passed"
    )
    last_event: EventKind | None


class Asked(Record):
    """A step's brief was written."""

    number: int = Field(description="of the step")


class Declined(Record):
    """A brief was written, but its proposer had nothing to say just then, and the step was not begun."""

    number: int = Field(description="that the step would have had, and the next one has")


class Answered(Record):
    """A question of a step was answered."""

    number: int = Field(description="of the step")
    attempt: int


class Judged(Record):
    """A candidate was judged, for the search or for a confirmation; or a proposal was found to be no candidate."""

    number: int = Field(description="of the step")
    evaluation: Evaluation


Arrival = Asked | Declined | Answered | Judged
"""Something that a search's decisions depend on. Told again in the same order, they come out the same."""


class Store(Protocol):
    """Where runs are kept. Whatever `add_*`, `create_run` or `put_object` returned from survives a crash.

    What was paid for or measured (answers, evaluations) survives a power cut too, with all that was added before it.
    Nothing is ever changed or removed. One thread writes and any number read at the same time (questions and
    their answers excepted, which any may add); several processes may hold the same store. Every method raises
    `StoreError`: the store is locked, damaged or full, or what is added contradicts what is there. Methods that
    take the name of a run raise `UnknownRunError` for one that isn't there.
    """

    def create_run(self, spec: RunSpec) -> None:
        """Begin a run. Its name must be new."""

    def add_ask(self, run: str, number: int, brief: Brief) -> None:
        """Begin step `number` (new in the run) with its brief, before anything is asked."""

    def add_decline(self, run: str, number: int) -> None:
        """Add that the brief which step `number` would have had led to nothing; the step is not begun."""

    def add_exchange(self, run: str, number: int, exchange: Exchange) -> None:
        """Add an answer with its question to a step that `add_ask` began, one for each attempt."""

    def add_proposal(self, run: str, number: int, proposal: Proposal, candidate: Candidate | None) -> None:
        """Add what was proposed at step `number` (once), and the candidate if it became one.

        The step needs no ask: a proposal that nobody was asked for begins it.
        """

    def add_evaluation(self, run: str, number: int, evaluation: Evaluation) -> None:
        """Add what the judge said at a step that `add_proposal` began.

        A step takes one evaluation with the purpose `search`, and any number with another.
        """

    def add_calibration(self, run: str, calibration: Calibration) -> None:
        """Add the baselines' times. The latest counts."""

    def add_event(self, run: str, event: Event) -> None:
        """Add what happened to the run as a whole."""

    def add_statistics(self, run: str, number: int, values: Mapping[str, float]) -> None:
        """Add finite numbers to a step that `add_proposal` began; a name at most once a step."""

    def run(self, name: str) -> Run:
        """The run: steps by number, the `search` evaluation and the `confirm` ones of each, events in order.

        A step that has no `search` evaluation is under way, or was when the process died.
        """

    def asks(self, run: str) -> tuple[Ask, ...]:
        """The briefs of a run by step, each with its exchanges by attempt."""

    def arrivals(self, run: str) -> tuple[Arrival, ...]:
        """Asks, answers and evaluations of a run (certification apart) in the order in which they were added."""

    def evaluations(self, run: str, purpose: Purpose) -> tuple[Evaluation, ...]:
        """Every evaluation of a run for one purpose, in the order in which they were added."""

    def statistics(self, run: str) -> tuple[Statistic, ...]:
        """Every statistic of a run, by step, then by name."""

    def specs(self) -> tuple[RunSpec, ...]:
        """What each run was asked to do, newest first."""

    def summaries(self) -> tuple[RunSummary, ...]:
        """A line for each run, newest first. Cheap: reads no objects."""

    def find_evaluation(
        self,
        target_digest: str,
        hardware_key: str,
        code_digest: str,
        *,
        normal: str | None = None,
        threads: int | None = None,
    ) -> Evaluation | None:
        """The latest `search` evaluation, in any run, of the same code on the same target and hardware.

        With `normal`, code that differs in comments and blank space counts as the same. With `threads`, only of
        runs that gave kernels that many. The evaluation names the candidate that
        was evaluated, whose lineage may differ from the asker's.
        """

    def add_question(self, run: str, request: ModelRequest) -> None:
        """Open a question for whoever answers by file. Once more does nothing; another in its place is refused."""

    def open_questions(self, run: str) -> tuple[ModelRequest, ...]:
        """Questions that nobody has answered, by step and attempt. One whose exchange is stored is closed."""

    def add_answer(self, run: str, step: int, attempt: int, answer: Answer) -> None:
        """Answer an open question. Raises `UsageError` for one that is unknown, answered or closed."""

    def find_answer(self, run: str, step: int, attempt: int) -> Answer | None:
        """What was answered; None while nothing was."""

    def put_object(self, data: bytes) -> str:
        """Keep bytes; returns their SHA-256 (hexadecimal). The same bytes are kept once."""

    def get_object(self, digest: str) -> bytes:
        """The bytes of a digest, verified against it."""

    def close(self) -> None:
        """Let go of the store's files or connections."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
