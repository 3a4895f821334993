"""What is under way: questions to models and candidates before judges, side by side."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Literal

from kernelevolve.asking import Lanes, by_file
from kernelevolve.course import Course, Work
from kernelevolve.errors import UsageError
from kernelevolve.executors import Executor
from kernelevolve.llm.budget import Spending, worst_case
from kernelevolve.schema import CallFailed, Job, ModelInfo, ModelRequest, RunSpec

Flight = ModelRequest | Work
"""What a future is about: a question, or a candidate to be judged."""

Flights = Mapping["Future[Any]", Flight]

Choice = Callable[[Flights], "Future[Any] | None"]
"""Picks what lands next, waiting for it a moment if need be; None where nothing has come in."""


def _place(flight: Flight) -> tuple[int, object]:
    """What tells it from everything else that is under way in a run."""
    return (flight.number, flight.purpose) if isinstance(flight, Work) else (flight.step, flight.attempt)


class Traffic:
    """Starts what the course has open, and brings home one thing at a time."""

    def __init__(
        self, spec: RunSpec, course: Course, executor: Executor, lanes: Lanes | None, spending: Spending
    ) -> None:
        self._spec = spec
        self._course = course
        self._executor = executor
        self._lanes = lanes
        self._spending = spending
        self._flights: dict[Future[Any], Flight] = {}

    @property
    def flights(self) -> Flights:
        """Everything under way."""
        return self._flights

    @property
    def asked(self) -> int:
        """Questions under way."""
        return sum(isinstance(flight, ModelRequest) for flight in self._flights.values())

    @property
    def judging(self) -> int:
        """Candidates before a judge."""
        return min(len(self._course.work), self._executor.concurrency)

    @property
    def waiting(self) -> int:
        """Candidates that wait for a judge."""
        return len(self._course.work) - self.judging

    @property
    def held(self) -> ModelRequest | None:
        """The first question that isn't under way: it was too late for it, or the budget may not last for it."""
        return next((r for r in self._course.questions.values() if not self._is_under_way(r)), None)

    def has_room(self) -> bool:
        """Whether one more step can be begun at once: there is a judge for its candidate, or a lane for its question.

        Where models are asked, candidates may wait for a judge, though no more of them than there are judges.
        """
        judges = self._executor.concurrency
        if not self._spec.models:
            return len(self._course.work) < judges
        return self.held is None and self.asked < self._spec.lanes and self.waiting < judges

    def start(self, job: Callable[[Work], Job], *, asks: bool) -> None:
        """Submit every open candidate and, where `asks`, put the open questions as far as the budget is sure to last.

        Raises `UsageError` for a question to a model that the run doesn't have.
        """
        for work in self._course.work:
            if not self._is_under_way(work):
                self._flights[self._executor.submit(job(work))] = work
        while asks and (request := self.held) is not None and self.affords(request):
            assert self._lanes is not None, "a run with models has lanes"
            self._spending.reserve(request, self._model(request))
            self._flights[self._lanes.put(request)] = request

    def affords(self, request: ModelRequest) -> bool:
        """Whether the budget is sure to last for a question, those under way counted at their worst."""
        return self._spending.may_ask(request, self._model(request))

    def scarce(self, request: ModelRequest) -> Literal["usd", "tokens"] | None:
        """Which budget isn't sure to last for a question; None where it is put as soon as it may be."""
        if self.affords(request):
            return None
        tokens, limit = worst_case(request, self._model(request)).tokens, self._spec.budgets.tokens
        spent = self._spending.totals()
        return "tokens" if limit is not None and spent.tokens + spent.tokens_in_flight + tokens > limit else "usd"

    def land(self, choose: Choice) -> None:
        """Wait a moment for the next thing to come in, and have the course decide on it."""
        future = choose(self._flights)
        if future is None:
            return
        result = future.result()
        flight = self._flights.pop(future)
        if isinstance(flight, Work):
            self._course.judge(flight, result)
        else:
            self._course.answer(flight, result)

    def skip(self, reason: str) -> None:
        """Close the questions that aren't put, and those that somebody answers by file: nobody needs the answers."""
        for request in tuple(self._course.questions.values()):
            under_way = [future for future, flight in self._flights.items() if flight == request]
            if under_way and not by_file(self._spec.models, request):
                continue
            for future in under_way:
                del self._flights[future]
            self._course.answer(request, CallFailed(reason="skipped", message=reason, tries=0))

    def save(self) -> None:
        """Keep the answers that have come in and that nobody has looked at: they are paid."""
        for future, flight in self._flights.items():
            if isinstance(flight, ModelRequest) and future.done() and future.exception() is None:
                self._course.keep(flight, future.result())

    def _is_under_way(self, flight: Flight) -> bool:
        place = _place(flight)
        return any(_place(other) == place for other in self._flights.values())

    def _model(self, request: ModelRequest) -> ModelInfo:
        for model in self._spec.models:
            if model.name == request.model:
                return model
        raise UsageError(
            f"the proposer {self._spec.proposer} asks {request.model}, which this run doesn't have",
            remedy="name the models to ask with --model",
        )
