"""The course of a run: what is asked, proposed and judged, decided in the one order in which answers arrive.

It knows no thread and no clock: told the same things in the same order it decides the same. Everything is stored
before it is acted on, so a course that is restored from the store stands where the one before it stood.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kernelevolve.admission import Admission
from kernelevolve.briefing import Briefing
from kernelevolve.errors import StoreError
from kernelevolve.llm.budget import Spending
from kernelevolve.policies.base import Plan, Policy
from kernelevolve.proposers.base import Asks, Proposer, Remembers
from kernelevolve.schema import (
    Answer,
    Ask,
    Brief,
    Candidate,
    Evaluation,
    Exchange,
    Failed,
    ModelRequest,
    Parent,
    Proposal,
    Purpose,
    RunSpec,
    Step,
)
from kernelevolve.standing import Standing
from kernelevolve.store import Answered, Arrival, Asked, Declined, Judged, Store

log = logging.getLogger(__name__)

Earlier = Callable[[Candidate], Evaluation | None]
"""What an earlier run measured of the same kernel, as an evaluation of this candidate; None for a new one."""


@dataclass(frozen=True)
class Work:
    """A candidate that is to be judged, or is being judged."""

    number: int
    candidate: Candidate
    purpose: Purpose


@dataclass(frozen=True)
class Minds:
    """Who decides, each with a memory of its own."""

    proposer: Proposer
    policy: Policy
    briefing: Briefing
    admission: Admission


class Course:
    """Holds what is open: questions without an answer, candidates without an evaluation."""

    def __init__(
        self, spec: RunSpec, store: Store, minds: Minds, *, standing: Standing, spending: Spending, earlier: Earlier
    ) -> None:
        self._run = spec.run
        self._store = store
        self._standing = standing
        self._spending = spending
        self._minds = minds
        self._earlier = earlier
        self.questions: dict[int, ModelRequest] = {}
        """by step"""
        self.declined = False
        """whether the proposer had nothing to say, and nothing has arrived since"""
        self.codes: dict[str, str] = {}
        """what the compiler made (its digest) to the candidate of which it did so first"""
        self._work: dict[tuple[int, Purpose], Work] = {}
        self._plan: Plan | None = None
        """of a brief that was declined; the next brief is about the same"""
        self._briefs: dict[int, Brief] = {}
        """of steps without a proposal"""
        self._proposals: dict[int, Proposal] = {}
        """by step, without what makes them large: any candidate may be looked at again"""
        self._kept: dict[int, Step] = {}
        """while the course is restored: the stored steps"""
        self._unread: Counter[int] = Counter()
        """while the course is restored: stored answers of each step that weren't read yet"""

    @property
    def work(self) -> tuple[Work, ...]:
        """Candidates without an evaluation, in the order in which they came up."""
        return tuple(self._work.values())

    @property
    def searches(self) -> bool:
        """Whether a step is still without its evaluation."""
        return bool(self.questions) or any(work.purpose == "search" for work in self._work.values())

    def ask(self) -> bool:
        """Begin a step: plan, brief, and a question or a proposal; False where the proposer has nothing to say."""
        number = self._standing.begun
        brief = self._minds.briefing.brief(number, self._planned())
        said = self._minds.proposer.propose(brief)
        if said is None:
            self.declined = True
            self._store.add_decline(self._run, number)
            return False
        self._store.add_ask(self._run, number, brief)
        self._begin(number, brief)
        self._hear(number, said)
        return True

    def answer(self, request: ModelRequest, answer: Answer) -> None:
        """Take the answer to an open question: stored first, then read."""
        exchange = Exchange(request=request, answer=answer)
        self._store.add_exchange(self._run, request.step, exchange)
        self._read(request.step, exchange)

    def keep(self, request: ModelRequest, answer: Answer) -> None:
        """Only store the answer to an open question; the next sitting reads it."""
        self._store.add_exchange(self._run, request.step, Exchange(request=request, answer=answer))

    def judge(self, work: Work, evaluation: Evaluation) -> None:
        """Take the evaluation of open work: stored first, then learned from."""
        self.declined = False
        self._file(work.number, work.candidate, evaluation)

    def restore(self) -> None:
        """Stand where an earlier sitting of the run stood, by living through all of it again."""
        steps = self._store.run(self._run).steps
        asks = {ask.number: ask for ask in self._store.asks(self._run)}
        self._kept = {step.number: step for step in steps}
        self._proposals = {step.number: _small(step.proposal) for step in steps}
        self._unread.update({number: len(ask.exchanges) for number, ask in asks.items()})
        for step in steps:
            if step.number not in asks:  # of a run from before briefs were kept
                self._standing.begun = max(self._standing.begun, step.number + 1)
                self._keep(step)
        for arrival in self._store.arrivals(self._run):
            self._again(arrival, asks)
        for step in steps:
            if step.candidate is None and step.evaluation is None:  # killed between two writes
                self._file(step.number, None, self._minds.admission.refused(step.proposal))
        self._kept = {}

    def _planned(self) -> Plan:
        self._plan = self._plan or self._minds.policy.ask()
        return self._plan

    def _begin(self, number: int, brief: Brief) -> None:
        self._plan = None
        self._briefs[number] = brief
        self._minds.briefing.begin(brief)
        self._standing.begun = number + 1

    def _read(self, number: int, exchange: Exchange) -> None:
        self.declined = False
        self.questions.pop(number, None)
        self._spending.settle(exchange.request, exchange.answer)
        proposer = self._minds.proposer
        if not isinstance(proposer, Asks):
            raise StoreError(
                f"step {number} of {self._run} has an answer, and today's proposer {proposer.name} asks nothing",
                remedy="resume the run with the version of kernelevolve that began it",
            )
        self._hear(number, proposer.read(self._briefs[number], exchange.request, exchange.answer))

    def _hear(self, number: int, said: Proposal | ModelRequest) -> None:
        """A question is open from now on; a proposal becomes a candidate, or is the end of its step."""
        if self._unread[number]:
            return  # what it led to is stored, and comes next
        if number in self._kept:
            self._keep(self._kept[number])  # what was proposed counts, should the same words lead elsewhere today
            return
        if isinstance(said, ModelRequest):
            self.questions[number] = said
            return
        admitted = self._minds.admission.admit(said)
        candidate = None if isinstance(admitted, Failed) else admitted
        self._store.add_proposal(self._run, number, said, candidate)
        self._propose(number, said)
        if isinstance(admitted, Failed):
            self._file(number, None, admitted)
        elif (known := self._earlier(admitted)) is not None:
            self._file(number, admitted, known)
        else:
            self._open(Work(number, admitted, "search"))

    def _propose(self, number: int, proposal: Proposal) -> None:
        self._briefs.pop(number, None)
        self._proposals[number] = _small(proposal)
        self._minds.briefing.propose(number, proposal)

    def _open(self, work: Work) -> None:
        self._work[work.number, work.purpose] = work

    def _file(self, number: int, candidate: Candidate | None, evaluation: Evaluation) -> None:
        self._store.add_evaluation(self._run, number, evaluation)
        self._learn(number, candidate, evaluation)
        if evaluation.purpose == "search":
            self._store.add_statistics(self._run, number, self._minds.policy.statistics())

    def _learn(self, number: int, candidate: Candidate | None, evaluation: Evaluation) -> None:
        self._work.pop((number, evaluation.purpose), None)
        self._standing.count(evaluation)
        outcome = None if candidate is None else Parent(candidate=candidate, evaluation=evaluation)
        self._minds.policy.tell(number, outcome)
        self._minds.briefing.tell(number, self._proposals[number], outcome, evaluation)
        if outcome is not None:
            self._minds.proposer.tell(outcome)
            self._look_at(number, outcome)

    def _look_at(self, number: int, outcome: Parent) -> None:
        candidate, evaluation = outcome.candidate, outcome.evaluation
        if evaluation.code is not None:
            self.codes.setdefault(evaluation.code, candidate.digest)
        if self._standing.wants_confirmation(evaluation):
            self._open(Work(number, candidate, "confirm"))
        self._standing.look_at(number, outcome)
        doubtful = self._standing.doubtful()
        if doubtful is not None and (doubtful[0], "confirm") not in self._work:
            self._standing.looking()
            self._open(Work(*doubtful, "confirm"))

    # --- living through it again ---

    def _keep(self, step: Step) -> None:
        """A step whose proposal is stored. Its work is open until the evaluation comes by, if it was made."""
        self._propose(step.number, step.proposal)
        if step.candidate is not None:
            self._minds.admission.remember(step.candidate)
            self._open(Work(step.number, step.candidate, "search"))

    def _again(self, arrival: Arrival, asks: Mapping[int, Ask]) -> None:
        match arrival:
            case Asked(number=number):
                self._ask_again(asks[number])
            case Declined(number=number):
                self._minds.proposer.propose(self._minds.briefing.brief(number, self._planned()))
                self.declined = True
            case Answered(number=number, attempt=attempt):
                self._unread[number] -= 1
                self._read(number, next(e for e in asks[number].exchanges if e.request.attempt == attempt))
            case Judged(number=number, evaluation=evaluation):
                self.declined = False
                self._learn(number, self._kept[number].candidate, evaluation)

    def _ask_again(self, ask: Ask) -> None:
        """Ask policy and proposer as it was done then; the stored brief counts, and so does what came of it."""
        number, brief = ask.number, ask.brief
        plan = self._planned()
        if (plan.change, _digests(plan.parents)) != (brief.change, _digests(brief.parents)):
            log.warning("step %d: the policy would plan something else today", number)
        self._begin(number, brief)
        step, proposer = self._kept.get(number), self._minds.proposer
        if step is not None and not ask.exchanges and isinstance(proposer, Remembers):
            proposer.recall(brief, step.proposal)
            self._keep(step)
            return
        said = proposer.propose(brief)
        if ask.exchanges:
            return  # what it led to is stored, and comes next
        if step is not None:
            self._keep(step)
        elif said is not None:
            self._hear(number, said)
        else:
            raise StoreError(
                f"step {number} of {self._run} was asked for, and today's proposer has nothing to say to it",
                remedy="resume the run with the version of kernelevolve that began it",
            )


def _small(proposal: Proposal) -> Proposal:
    return proposal.model_copy(update={"files": {}, "answer": ""})


def _digests(parents: Iterable[Parent]) -> list[str]:
    return [parent.candidate.digest for parent in parents]
