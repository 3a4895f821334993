"""The open briefs of a run, as whoever answers them from outside sees them."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from kernelevolve.errors import UsageError
from kernelevolve.llm.abridging import abridged
from kernelevolve.llm.claims import Claims
from kernelevolve.runs import Runs
from kernelevolve.schema import Answer, CallFailed, ModelRequest, Record, Reply, Usage
from kernelevolve.store import Store

Standing = Literal["searching", "stopped", "ended"]
"""searching: a process waits for answers; stopped: none does, and the run can be resumed; ended: nothing is asked
any more."""

LONGEST = 1_000_000
"""Characters of an answer, at most; a kernel has a hundredth of that."""

_LAST_WORDS = ("finished", "certified", "refused")
_OUT_OF_TIME = "time"
"""What a sitting says that finished because its minutes were over: the next one goes on."""


class OpenBrief(Record):
    """A question that waits for its answer."""

    id: str = Field(description="STEP.ATTEMPT, what an answer names")
    request: ModelRequest
    claimed_at: datetime | None = Field(None, description="UTC; None where it was handed out to nobody yet")


class Desk:
    """Hands out the open briefs of one run, and takes the answers.

    Every answer is stored at once, whether a search is running or not: one that was stopped finds it when it is
    resumed. Raises `UnknownRunError` for a run that the store doesn't hold.
    """

    def __init__(self, runs: Runs, store: Store, run: str) -> None:
        self._store = store
        self._runs = runs
        self.run = run
        store.open_questions(run)  # a run that isn't there gets no folder
        self._claims = Claims(runs.claims_path(run))

    def briefs(self) -> tuple[OpenBrief, ...]:
        """Every open brief, by step; none once the run has ended."""
        at = self._claims.at()
        found = self._open()
        return tuple(OpenBrief(id=brief_id(r), request=r, claimed_at=at.get(brief_id(r))) for r in found)

    def take(self, *, again: bool = False) -> OpenBrief | None:
        """Claim the first brief that was handed out to nobody (or so long ago that the claim has lapsed).

        With `again`, claims of others don't count where nothing else is left. None where nothing is.
        """
        found = {brief_id(request): request for request in self._open()}
        taken = self._claims.take(tuple(found), again=again)
        return None if taken is None else OpenBrief(id=taken, request=found[taken], claimed_at=datetime.now(UTC))

    def abridged(self, request: ModelRequest) -> ModelRequest:
        """A question for whoever remembers the briefs of this run that were answered: the rules, the documents, the
        task, the machine and the files that they held are only named.
        """
        exchanges = (exchange for ask in self._store.asks(self.run) for exchange in ask.exchanges)
        answered = (e.request for e in exchanges if e.answer.outcome == "replied")
        return abridged(request, ((brief_id(earlier), earlier) for earlier in answered))

    def answer(self, brief: str, text: str) -> ModelRequest:
        """Answer a brief (`STEP` or `STEP.ATTEMPT`); returns what was asked.

        Raises `UsageError`: no such brief, one that was answered before, an answer that is empty or far too long.
        """
        request = self._find(brief)
        if not text.strip():
            raise UsageError(
                f"the answer to brief {brief_id(request)} is empty",
                remedy="write what the brief asks for, or pass the brief over with skip",
            )
        if len(text) > LONGEST:
            raise UsageError(
                f"the answer to brief {brief_id(request)} has {len(text):,} characters", remedy="is it the right file?"
            )
        # The run pays nothing for it, and nobody tells what it cost elsewhere.
        self._close(request, Reply(text=text, stop="end", usage=Usage(), seconds=self._seconds(request)))
        return request

    def skip(self, brief: str, reason: str = "") -> ModelRequest:
        """Say that a brief gets no answer; returns what was asked. Raises `UsageError` as `answer` does."""
        request = self._find(brief)
        message = reason.strip() or "passed over"
        seconds = self._seconds(request)
        self._close(request, CallFailed(reason="skipped", message=message, seconds=seconds))
        return request

    def standing(self) -> Standing:
        """Whether somebody waits for answers."""
        if self._runs.is_attended(self.run):
            return "searching"
        events = self._store.run(self.run).events
        if not events or events[-1].kind not in _LAST_WORDS:
            return "stopped"
        why = next((event.detail for event in reversed(events) if event.kind == "finished"), "")
        return "stopped" if why == _OUT_OF_TIME else "ended"

    def _open(self) -> tuple[ModelRequest, ...]:
        """What was asked and not answered when a run ended is of no use to anybody any more."""
        found = self._store.open_questions(self.run)
        return () if found and self.standing() == "ended" else found

    def _find(self, brief: str) -> ModelRequest:
        found = self._open()
        step, attempt = _numbers(brief)
        for request in found:
            if request.step == step and attempt in (None, request.attempt):
                return request
        raise UsageError(
            self._why_not(brief, step, attempt or 0),
            remedy=f"open now: {', '.join(map(brief_id, found)) or 'none'}",
        )

    def _why_not(self, brief: str, step: int, attempt: int) -> str:
        if self.standing() == "ended":
            return f"brief {brief} is closed: run {self.run} has ended"
        if self._store.find_answer(self.run, step, attempt) is not None:
            return f"brief {brief} of run {self.run} is closed: it was answered before"
        return f"run {self.run} has no brief {brief}"

    def _close(self, request: ModelRequest, answer: Answer) -> None:
        self._store.add_answer(self.run, request.step, request.attempt, answer)

    def _seconds(self, request: ModelRequest) -> float:
        """Since the brief was handed out; 0 where it was answered without being asked for."""
        at = self._claims.at().get(brief_id(request))
        return 0.0 if at is None else (datetime.now(UTC) - at).total_seconds()


def brief_id(request: ModelRequest) -> str:
    """What a brief is called on a command line."""
    return f"{request.step}.{request.attempt}"


def _numbers(brief: str) -> tuple[int, int | None]:
    step, dot, attempt = brief.partition(".")
    if step.isdecimal() and (attempt.isdecimal() or not dot):
        return int(step), int(attempt) if dot else None
    raise UsageError(f"{brief!r} names no brief", remedy="give STEP or STEP.ATTEMPT, for instance 12 or 12.1")
