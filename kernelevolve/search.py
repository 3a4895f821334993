"""The search: ask the policy, brief the proposer, let the harness judge, tell both, until the budget is spent."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Self

from kernelevolve import __version__, hardware, targets
from kernelevolve.catalog import EXECUTORS, LANGUAGES, POLICIES, PROPOSERS
from kernelevolve.errors import UsageError
from kernelevolve.executors import Executor
from kernelevolve.languages import language_for
from kernelevolve.plans import confirmation
from kernelevolve.policies.base import Policy
from kernelevolve.proposers.base import Proposer
from kernelevolve.resources import targets_dir
from kernelevolve.runs import Runs
from kernelevolve.schema import (
    Brief,
    Calibration,
    CalibrationJob,
    Candidate,
    Entry,
    Evaluation,
    Event,
    EventKind,
    Failed,
    Job,
    ModelRequest,
    Parent,
    Passed,
    Proposal,
    Purpose,
    Refused,
    RunSpec,
    Step,
    TimingPlan,
    Triaged,
)
from kernelevolve.settings import Settings
from kernelevolve.store import SqlStore

log = logging.getLogger(__name__)

Stage = Literal["calibrating", "searching", "confirming", "done"]
Stopped = Literal["budget", "time", "exhausted"]


@dataclass(frozen=True)
class Progress:
    """Where a search stands."""

    stage: Stage
    evaluated: int
    failed: int
    in_flight: int
    budget: int
    seconds: float
    seconds_left: float | None
    best: Passed | None
    best_label: str
    estimated_us: float | None = None
    """the best estimate so far, in microseconds, where nothing is measured; `best_label` is that candidate's"""


@dataclass(frozen=True)
class SearchResult:
    """How a search ended. `best` was measured twice, the second time in a fresh process."""

    run: str
    target: str
    hardware_key: str
    evaluated: int
    failed: int
    best: Parent | None
    baseline: dict[str, str]
    seconds: float
    stopped: Stopped


TRIAGE = "triage"
"""The executor that judges for a device which isn't here: nothing is timed, confirmed or certified."""

Listener = Callable[[Progress], None]


@dataclass(frozen=True)
class _Flight:
    """A job under way."""

    number: int
    candidate: Candidate
    purpose: Purpose


@dataclass
class _State:
    """What a search has seen so far."""

    evaluated: int = 0
    failed: int = 0
    next_number: int = 0
    best: Parent | None = None
    best_number: int = 0
    estimated: tuple[float, str] | None = None
    """best estimate (microseconds), and the label of its candidate"""
    flights: dict[Future[Evaluation], _Flight] = field(default_factory=dict)
    exhausted: bool = False

    def under_way(self, purpose: Purpose) -> int:
        return sum(f.purpose == purpose for f in self.flights.values())


class Session:
    """One sitting of a run: started, or resumed where an earlier sitting ended."""

    def __init__(self, settings: Settings, spec: RunSpec, store: SqlStore, kind: EventKind) -> None:
        self._settings = settings
        self.spec = spec
        self._store = store
        self._seeds = targets.seeds(spec.target.name, targets_dir(settings.targets))
        self._language = language_for(spec.language, spec.hardware)
        proposer = PROPOSERS.load(spec.proposer)
        policy = POLICIES.load(spec.policy)
        self._proposer: Proposer = proposer(proposer.Config(), seed=spec.seed)
        self._policy: Policy = policy(policy.Config(), seed=spec.seed, changes=self._proposer.changes)
        self._state = _State()
        self._calibration: Calibration | None = None
        self._began = time.monotonic()
        self._kind: EventKind = kind

    @classmethod
    def start(cls, settings: Settings, target_name: str, executor: str = "local") -> Self:
        """A new run by these settings. Raises `UsageError`, `ToolchainError` and `StoreError`."""
        target = targets.load(target_name, targets_dir(settings.targets))
        apart = executor == TRIAGE
        machine = hardware.described(settings.hardware) if apart else hardware.find(settings.hardware)
        # A wrong name is said before anything is measured or written.
        LANGUAGES.load(settings.language_on(machine))
        for catalog, name in ((PROPOSERS, settings.proposer), (POLICIES, settings.policy)):
            catalog.load(name)
        if not apart:
            machine = hardware.measured(settings.hardware, settings.threads, settings.cache)
        language_for(settings.language_on(machine), machine)
        runs = Runs(settings.runs)
        spec = RunSpec(
            run=runs.new_name(target_name),
            created_at=_now(),
            target=target,
            hardware=machine,
            language=settings.language_on(machine),
            proposer=settings.proposer,
            policy=settings.policy,
            seed=settings.seed,
            evals=settings.evals,
            minutes=settings.minutes,
            workers=settings.workers_on(hardware.detect() if apart else machine),
            threads=settings.threads_on(machine),
            sandbox=settings.require_sandbox,
            executor=executor,
            kernelevolve=__version__,
        )
        if not target.select(machine.device, "search"):
            raise UsageError(
                f"target {target.name} has no search workload for a {machine.device}",
                remedy="add one to its target.toml",
            )
        session = cls(settings, spec, SqlStore.open(runs.database), "started")
        session._store.create_run(spec)
        return session

    @classmethod
    def resume(cls, settings: Settings, run: str) -> Self:
        """Go on with a run, by what it was asked when it was started and to the same total budget."""
        store = SqlStore.open(Runs(settings.runs).database)
        spec = store.run(run).spec
        if spec.executor != TRIAGE and hardware.find(spec.hardware.key).key != spec.hardware.key:
            raise UsageError(f"run {run} was started on {spec.hardware.key}", remedy="resume it on such a machine")
        return cls(settings, spec, store, "resumed")

    def run(self, listen: Listener) -> SearchResult:
        """Search until the budget is spent; on Ctrl-C the run stays resumable. Raises `JudgeError`, `StoreError`."""
        spec = self.spec
        self._event(self._kind)
        kind = EXECUTORS.load(spec.executor)
        executor: Executor = kind(kind.Config(workers=spec.workers))
        try:
            self._restore(executor, listen)
            self._loop(executor, listen)
        except KeyboardInterrupt:
            self._event("interrupted")
            raise
        finally:
            executor.close()
        self._event("finished", self._stopped())
        self._tell(listen, "done")
        return self.result()

    def conclude(self, outcome: Entry | Refused, detail: str) -> None:
        """Write down how certification ended, in this sitting or before; a refusal's measurements are kept too."""
        run = self.spec.run
        if isinstance(outcome, Refused) and outcome.evaluation not in self._store.evaluations(run, "certify"):
            self._store.add_evaluation(run, self._state.best_number, outcome.evaluation)
        self._event("certified" if isinstance(outcome, Entry) else "refused", detail)

    def result(self) -> SearchResult:
        """Where the run stands now."""
        state, spec = self._state, self.spec
        assert self._calibration is not None
        return SearchResult(
            run=spec.run,
            target=spec.target.name,
            hardware_key=spec.hardware.key,
            evaluated=state.evaluated,
            failed=state.failed,
            best=state.best,
            baseline={w: self._calibration.fastest(w) for w in self._calibration.times},
            seconds=time.monotonic() - self._began,
            stopped=self._stopped(),
        )

    def _restore(self, executor: Executor, listen: Listener) -> None:
        """Replay what the store has of this run; what was under way when it ended is judged first."""
        run = self._store.run(self.spec.run)
        self._tell(listen, "calibrating")
        self._calibration = run.calibration
        if self._calibration is None:
            self._calibration = executor.calibrate(
                CalibrationJob(
                    target=self.spec.target,
                    hardware=self.spec.hardware,
                    threads=self.spec.threads,
                    sandbox=self.spec.sandbox,
                    cache_dir=str(self._settings.cache),
                )
            )
            self._store.add_calibration(self.spec.run, self._calibration)
        for step in run.steps:
            self._replay(step, executor)
        # Only now: a step that was no promise when it landed may have a lower number than the best of that moment.
        for step in run.steps:
            if step.candidate and step.evaluation and not step.confirmations and self._promising(step.evaluation):
                self._submit(executor, step.number, step.candidate, "confirm")

    def _replay(self, step: Step, executor: Executor) -> None:
        state = self._state
        state.next_number = max(state.next_number, step.number + 1)
        if step.evaluation is None and step.candidate is not None:
            self._submit(executor, step.number, step.candidate, "search")
            return
        if step.evaluation is None:  # killed between the two writes of a proposal that doesn't parse
            self._store.add_evaluation(self.spec.run, step.number, self._refused(step.proposal))
        state.evaluated += 1
        if step.candidate is None or step.evaluation is None:
            state.failed += 1
            return
        state.failed += isinstance(step.evaluation, Failed)
        self._learn(step.number, Parent(candidate=step.candidate, evaluation=step.evaluation))
        for again in step.confirmations:
            parent = Parent(candidate=step.candidate, evaluation=again)
            self._learn(step.number, parent)
            self._crown(step.number, parent)

    def _loop(self, executor: Executor, listen: Listener) -> None:
        state = self._state
        while True:
            while self._may_ask() and len(state.flights) < executor.concurrency and self._ask(executor):
                pass
            self._tell(listen, "searching" if state.under_way("search") or self._may_ask() else "confirming")
            if not state.flights:
                return
            done, _ = wait(state.flights, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                self._land(state.flights.pop(future), future.result(), executor)

    def _may_ask(self) -> bool:
        state, minutes = self._state, self.spec.minutes
        late = minutes is not None and time.monotonic() - self._began > minutes * 60
        left = self.spec.evals - state.evaluated - state.under_way("search")
        return left > 0 and not late and not state.exhausted

    def _ask(self, executor: Executor) -> bool:
        """One step: plan, brief, proposal, candidate, job; False where the proposer has nothing to say just now.

        Everything is stored before it is acted on.
        """
        spec, state = self.spec, self._state
        number = state.next_number
        plan = self._policy.ask()
        brief = Brief(
            step=number, target=spec.target, hardware=spec.hardware, language=spec.language,
            change=plan.change, parents=plan.parents, seeds=self._seeds,
        )  # fmt: skip
        proposal = self._proposer.propose(brief)
        if proposal is None or isinstance(proposal, ModelRequest):
            # What is under way may still open something up; with nothing under way the space is walked.
            state.exhausted = not state.flights
            return False
        state.next_number += 1
        findings = self._language.admit(proposal.files)
        candidate = None if findings else _candidate(proposal)
        self._store.add_proposal(spec.run, number, proposal, candidate)
        if candidate is None:
            self._store.add_evaluation(spec.run, number, self._refused(proposal))
            state.evaluated += 1
            state.failed += 1
        else:
            self._submit(executor, number, candidate, "search")
        return True

    def _refused(self, proposal: Proposal) -> Failed:
        findings = self._language.admit(proposal.files)
        return Failed(candidate=None, target=self.spec.target.digest, stage="parse", diagnostics=findings)

    def _submit(self, executor: Executor, number: int, candidate: Candidate, purpose: Purpose) -> None:
        assert self._calibration is not None
        fastest = {w: (self._calibration.fastest(w),) for w in self._calibration.times}
        job = Job(
            target=self.spec.target, candidate=candidate, hardware=self.spec.hardware, purpose=purpose,
            timing=confirmation(self.spec.evals) if purpose == "confirm" else TimingPlan(),
            baselines=fastest, threads=self.spec.threads, cache_dir=str(self._settings.cache),
            counters=purpose == "confirm", sandbox=self.spec.sandbox,
        )  # fmt: skip
        self._state.flights[executor.submit(job)] = _Flight(number, candidate, purpose)

    def _land(self, flight: _Flight, evaluation: Evaluation, executor: Executor) -> None:
        """Store first, then learn; a new best gets a second look before it becomes the best."""
        state = self._state
        self._store.add_evaluation(self.spec.run, flight.number, evaluation)
        parent = Parent(candidate=flight.candidate, evaluation=evaluation)
        self._learn(flight.number, parent)
        if flight.purpose == "confirm":
            self._crown(flight.number, parent)
            return
        state.evaluated += 1
        state.failed += isinstance(evaluation, Failed)
        self._store.add_statistics(self.spec.run, flight.number, self._policy.statistics())
        if self._promising(evaluation):
            self._submit(executor, flight.number, flight.candidate, "confirm")

    def _learn(self, number: int, parent: Parent) -> None:
        self._policy.tell(number, parent)
        self._proposer.tell(parent)
        said, found = parent.evaluation, self._state.estimated
        if isinstance(said, Triaged) and said.estimated_us is not None and (not found or said.estimated_us < found[0]):
            self._state.estimated = said.estimated_us, parent.candidate.label

    def _promising(self, evaluation: Evaluation) -> bool:
        best = self._best
        return isinstance(evaluation, Passed) and (best is None or evaluation.may_beat(best))

    def _crown(self, number: int, parent: Parent) -> None:
        found, best = parent.evaluation, self._best
        if isinstance(found, Passed) and (best is None or found.beats(best)):
            self._state.best, self._state.best_number = parent, number

    @property
    def _best(self) -> Passed | None:
        best = self._state.best
        return best.evaluation if best is not None and isinstance(best.evaluation, Passed) else None

    def _stopped(self) -> Stopped:
        if self._state.evaluated >= self.spec.evals:
            return "budget"
        return "exhausted" if self._state.exhausted else "time"

    def _event(self, kind: EventKind, detail: str = "") -> None:
        self._store.add_event(self.spec.run, Event(kind=kind, at=_now(), detail=detail))

    def _tell(self, listen: Listener, stage: Stage) -> None:
        state, spec = self._state, self.spec
        seconds = time.monotonic() - self._began
        best, measured = state.best, self._best
        listen(
            Progress(
                stage=stage,
                evaluated=state.evaluated,
                failed=state.failed,
                in_flight=len(state.flights),
                budget=spec.evals,
                seconds=seconds,
                seconds_left=None if spec.minutes is None else max(0.0, spec.minutes * 60 - seconds),
                best=measured,
                best_label=best.candidate.label if best is not None else state.estimated[1] if state.estimated else "",
                estimated_us=state.estimated[0] if state.estimated else None,
            )
        )


def _candidate(proposal: Proposal) -> Candidate:
    return Candidate(
        language=proposal.language, files=proposal.files, tunables=proposal.tunables, lineage=proposal.lineage
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
