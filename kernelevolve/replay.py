"""A world made of a recording: every answer and every evaluation comes from it, in the order in which it came then.

A run in it asks no model and needs no machine. It makes the same decisions, and fails where it makes another one.
"""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, ClassVar

from kernelevolve.briefing import Briefing
from kernelevolve.course import Earlier, Work
from kernelevolve.errors import NotRecordedError
from kernelevolve.executors import Executor
from kernelevolve.llm.base import Client
from kernelevolve.policies.base import Plan
from kernelevolve.recording import Recording, came_in, exchange_of, is_reused
from kernelevolve.schema import (
    Answer,
    Ask,
    Brief,
    Calibration,
    CalibrationJob,
    Candidate,
    Evaluation,
    Job,
    ModelRequest,
    Parent,
)
from kernelevolve.store import Answered, Arrival, Declined, Judged
from kernelevolve.traffic import Flight, Flights

_REMEDY = "replay with the version, the settings and the prompts that it was recorded with, or record it again"


class Replay:
    """See `Outside`. Each answer is there at once; which of them lands next is what the recording says."""

    def __init__(self, recording: Recording, lived: Iterable[Arrival] = (), asks: Iterable[Ask] = ()) -> None:
        """`lived` is what an earlier sitting of the replayed run has been through already, `asks` its briefs."""
        self._recording = recording
        self._lived = tuple(lived)
        own = {ask.number: ask for ask in asks}
        done = sum(came_in(arrival, own) for arrival in self._lived)
        self._coming = [arrival for arrival in recording.arrivals if came_in(arrival, recording.asks)][done:]

    def executor(self) -> Executor:
        """See `Outside`."""
        return RecordedJudge(self._recording, self._lived)

    def client(self) -> Client:
        """See `Outside`."""
        return RecordedClient(self._recording)

    def briefing(self, calibration: Calibration) -> Briefing:
        """See `Outside`: the briefs that were written then."""
        return RecordedBriefing(self._recording)

    def earlier(self, calibration: Calibration) -> Earlier:
        """See `Outside`: what was taken over then."""
        found = [a.evaluation for a in self._recording.arrivals if isinstance(a, Judged) and is_reused(a.evaluation)]
        known = {evaluation.candidate: evaluation for evaluation in found}
        return lambda candidate: known.get(candidate.digest)

    def choose(self, flights: Flights) -> "Future[Any] | None":
        """See `Outside`."""
        if not self._coming:
            raise NotRecordedError(
                f"the recording ends where {_names(flights.values())} should come in", remedy=_REMEDY
            )
        arrival = self._coming[0]
        for future, flight in flights.items():
            if _is(flight, arrival):
                del self._coming[0]
                return future
        raise NotRecordedError(
            f"{_name(arrival)} should come in, and under way are {_names(flights.values())}", remedy=_REMEDY
        )

    def is_late(self, seconds: float) -> bool:
        """See `Outside`: a clock that ran out then runs out when nothing more comes in."""
        return self._recording.stopped == "time" and not self._coming

    def may_begin(self, number: int) -> bool:
        """See `Outside`: where a clock ran out then, as many steps as there were."""
        return self._recording.stopped != "time" or number in self._recording.asks

    def leaves(self, flights: Flights) -> bool:
        """See `Outside`: what nobody answered then, nobody answers now."""
        return not self._coming


class RecordedBriefing(Briefing):
    """The briefs of a recording. A plan that isn't the one that was made then is an error."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording.spec, ())
        self._asks = recording.asks
        self._declined = {arrival.number for arrival in recording.arrivals if isinstance(arrival, Declined)}

    def brief(self, number: int, plan: Plan) -> Brief:
        """See `Briefing`. Raises `NotRecordedError`."""
        ask = self._asks.get(number)
        if ask is None and number in self._declined and self._asks:
            # What was declined then isn't kept: another brief shows the proposer all that it goes by.
            other = next(iter(self._asks.values())).brief
            return other.model_copy(
                update={"step": number, "change": plan.change, "parents": plan.parents, "memory": plan.memory}
            )
        if ask is None:
            raise NotRecordedError(f"step {number} was never asked for", remedy=_REMEDY)
        then, now = _plan(ask.brief.change, ask.brief.parents), _plan(plan.change, plan.parents)
        if then != now:
            raise NotRecordedError(f"step {number} was to be a {then}, and is a {now}", remedy=_REMEDY)
        return ask.brief


class RecordedClient:
    """Answers what was asked then."""

    def __init__(self, recording: Recording) -> None:
        exchanges = [exchange for ask in recording.asks.values() for exchange in ask.exchanges]
        self._answers = {exchange.request.digest: exchange.answer for exchange in exchanges}
        self._briefs = recording.asks

    def complete(self, request: ModelRequest) -> Answer:
        """See `Client`. Raises `NotRecordedError` for a question that wasn't asked then."""
        answer = self._answers.get(request.digest)
        if answer is None:
            raise NotRecordedError(
                f"the question of step {request.step}, attempt {request.attempt}, to {request.model} was never asked "
                f"in these words{self._difference(request)}",
                remedy=_REMEDY,
            )
        return answer

    def close(self) -> None:
        """Nothing is open."""

    def _difference(self, request: ModelRequest) -> str:
        """Where the words differ from those that were used then."""
        ask = self._briefs.get(request.step)
        if ask is None or all(e.request.attempt != request.attempt for e in ask.exchanges):
            return ""
        then = exchange_of(ask, request.attempt).request
        for name in ModelRequest.model_fields:
            if (old := getattr(then, name)) != (new := getattr(request, name)):
                return f": {name} {_first_difference(str(old), str(new))}"
        return ""


class RecordedJudge:
    """Says what the judges said then."""

    name: ClassVar[str] = "recorded"

    def __init__(self, recording: Recording, lived: Iterable[Arrival]) -> None:
        self._calibration = recording.calibration
        self._workers = recording.spec.workers
        said = [_judged(arrivals) for arrivals in (recording.arrivals, lived)]
        self._evaluations = {key: deque(found[len(said[1].get(key, ())) :]) for key, found in said[0].items()}

    @property
    def concurrency(self) -> int:
        """As many as there were then."""
        return self._workers

    def calibrate(self, job: CalibrationJob) -> Calibration:
        """See `Executor`."""
        return self._calibration

    def submit(self, job: Job) -> Future[Evaluation]:
        """See `Executor`. Raises `NotRecordedError` for a candidate that wasn't judged then."""
        known = self._evaluations.get((job.candidate.digest, job.purpose))
        if not known:
            raise NotRecordedError(f"{_candidate(job.candidate, job.purpose)} was never judged", remedy=_REMEDY)
        outcome: Future[Evaluation] = Future()
        outcome.set_result(known.popleft())
        return outcome

    def close(self) -> None:
        """Nothing was started."""


def _judged(arrivals: Iterable[Arrival]) -> dict[tuple[str | None, str], list[Evaluation]]:
    """What judges said of each candidate for each purpose, in order: the best may be looked at several times."""
    found: dict[tuple[str | None, str], list[Evaluation]] = {}
    for arrival in arrivals:
        if isinstance(arrival, Judged) and not is_reused(arrival.evaluation):
            said = arrival.evaluation
            found.setdefault((said.candidate, said.purpose), []).append(said)
    return found


def _is(flight: Flight, arrival: Arrival) -> bool:
    match arrival:
        case Answered(number=number, attempt=attempt):
            return isinstance(flight, ModelRequest) and (flight.step, flight.attempt) == (number, attempt)
        case Judged(number=number, evaluation=evaluation):
            return isinstance(flight, Work) and (flight.number, flight.purpose) == (number, evaluation.purpose)
        case _:
            return False


def _name(arrival: Arrival) -> str:
    kind = "the answer" if isinstance(arrival, Answered) else "the evaluation"
    return f"{kind} of step {arrival.number}"


def _names(flights: Iterable[Flight]) -> str:
    names = [f"the evaluation of step {f.number}" if isinstance(f, Work) else f"the answer of step {f.step}"
             for f in flights]  # fmt: skip
    return ", ".join(names) or "nothing"


def _candidate(candidate: Candidate, purpose: str) -> str:
    return f"candidate {candidate.digest[:12]} ({candidate.label}, to {purpose})"


def _plan(change: str, parents: Iterable[Parent]) -> str:
    return " ".join([change, *(f"of {parent.candidate.digest[:12]}" for parent in parents)])


def _first_difference(old: str, new: str) -> str:
    position = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, position - 20)
    return f"had {old[start : position + 40]!r} at character {position}, and has {new[start : position + 40]!r}"
