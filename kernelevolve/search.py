"""The search: questions and evaluations under way together, decided one by one as they come in, until it may end."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Self

from kernelevolve import hardware, rehearsal
from kernelevolve.admission import Admission
from kernelevolve.asking import Lanes, greet
from kernelevolve.catalog import POLICIES, PROPOSERS
from kernelevolve.commission import TRIAGE, commission
from kernelevolve.course import Course, Minds, Work
from kernelevolve.errors import KernelevolveError, UsageError
from kernelevolve.executors import Executor
from kernelevolve.knowledge.skill_shelf import learn
from kernelevolve.knowledge.skills import distil
from kernelevolve.languages import language_for
from kernelevolve.llm.budget import Spending, check_first
from kernelevolve.outside import Live, Outside, briefing_of
from kernelevolve.plans import confirmation
from kernelevolve.policies.base import Policy
from kernelevolve.policies.stopping import StopReason
from kernelevolve.proposers.base import Proposer
from kernelevolve.recording import Recording
from kernelevolve.rehearsal import Rehearsal
from kernelevolve.replay import Replay
from kernelevolve.runs import Runs
from kernelevolve.schema import (
    Calibration,
    CalibrationJob,
    Entry,
    Event,
    EventKind,
    Job,
    Refused,
    RunSpec,
    TimingPlan,
)
from kernelevolve.settings import Settings
from kernelevolve.standing import Progress, SearchResult, Stage, Standing, Stopped, fastest_baselines
from kernelevolve.store import SqlStore
from kernelevolve.traffic import Traffic

__all__ = ["TRIAGE", "Listener", "Progress", "Rehearsal", "SearchResult", "Session", "rehearse"]

Listener = Callable[[Progress], None]

_CONTENT = ("speedup", "roofline", "stall")
"""Reasons to end after which open questions need no answer."""


class Session:
    """One sitting of a run: started, or resumed where an earlier sitting ended."""

    def __init__(
        self, settings: Settings, spec: RunSpec, store: SqlStore, kind: EventKind, recording: Recording | None = None
    ) -> None:
        self._settings = settings
        self.spec = spec
        self._store = store
        self._kind: EventKind = kind
        self._recording = recording
        self._began = time.monotonic()
        self._language = language_for(spec.language, spec.hardware)
        self._proposer = _proposer(settings, spec)
        self._policy = _policy(spec, self._proposer)
        self._standing = Standing(spec)
        self._spending = Spending(spec.budgets)
        self._calibration: Calibration | None = None
        self._codes: Mapping[str, str] = {}
        self._stopped: Stopped = "time"

    @classmethod
    def start(cls, settings: Settings, target_name: str, executor: str = "local") -> Self:
        """A new run by these settings. Raises `UsageError`, `ToolchainError` and `StoreError`."""
        spec = commission(settings, target_name, executor)
        # What can't be used is told of before anything is written: a template, a document, a budget, a model.
        check_first(_rehearse(settings, spec).request, spec.models, spec.budgets)
        greet(spec.models)
        session = cls(settings, spec, SqlStore.open(Runs(settings.runs).database), "started")
        session._store.create_run(spec)
        return session

    @classmethod
    def resume(cls, settings: Settings, run: str, recording: Recording | None = None) -> Self:
        """Go on with a run, by what it was asked when it was started and to the same total budget.

        Of a replayed run, `recording` is what it replays. Raises `UsageError` and `StoreError`.
        """
        store = SqlStore.open(Runs(settings.runs).database)
        spec = store.run(run).spec
        if recording is not None:
            if spec != _again(recording.spec, spec.run, spec.created_at):
                said = f"run {run} doesn't replay this recording"
                raise UsageError(said, remedy="name the recording that it was started with")
        elif spec.executor != TRIAGE and hardware.find(spec.hardware.key).key != spec.hardware.key:
            raise UsageError(f"run {run} was started on {spec.hardware.key}", remedy="resume it on such a machine")
        return cls(settings, spec, store, "resumed", recording)

    @classmethod
    def replay(cls, settings: Settings, recording: Recording) -> Self:
        """A new run that lives through a recorded one. Raises `StoreError`."""
        runs = Runs(settings.runs)
        spec = _again(recording.spec, runs.new_name(recording.spec.target.name), _now())
        session = cls(settings, spec, SqlStore.open(runs.database), "started", recording)
        session._store.create_run(spec)
        return session

    def rehearse(self) -> Rehearsal:
        """The first question of the run and what all of them may cost; asks nobody, and changes nothing."""
        return _rehearse(self._settings, self.spec)

    def run(self, listen: Listener, outside: Outside | None = None) -> SearchResult:
        """Search until the budget is spent; on Ctrl-C the run stays resumable.

        `outside` is the world that it meets, the real one for None. Raises `JudgeError`, `StoreError`, and
        `UsageError` for a model that can't be asked.
        """
        world = outside or self._world()
        self._event(self._kind, f"replays {self._recording.spec.run}" if self._recording else "")
        with ExitStack() as open_:
            executor = world.executor()
            open_.callback(executor.close)
            self._calibrate(executor, listen)
            course = self._restored(world)
            lanes = self._lanes(world, open_)
            traffic = Traffic(self.spec, course, executor, lanes, self._spending)
            try:
                self._loop(world, course, traffic, listen)
            except (KeyboardInterrupt, KernelevolveError) as error:
                if self._recording is None:
                    traffic.save()
                if isinstance(error, KeyboardInterrupt):
                    self._event("interrupted")
                raise
            self._stopped = self._why(course, traffic)
        self._event("finished", self._stopped)
        if self._recording is None:
            self._learn()
        self._tell(listen, "done")
        return self.result()

    def _learn(self) -> None:
        """Leave what the run found out to later ones."""
        if skill := distil(self._store.run(self.spec.run)):
            learn(Runs(self._settings.runs).skills, skill)

    def conclude(self, outcome: Entry | Refused, detail: str) -> None:
        """Write down how certification ended, in this sitting or before; a refusal's measurements are kept too."""
        run = self.spec.run
        if isinstance(outcome, Refused) and outcome.evaluation not in self._store.evaluations(run, "certify"):
            steps = self._store.run(run).steps
            of = [step.number for step in steps if step.candidate and step.candidate.digest == outcome.candidate]
            self._store.add_evaluation(run, of[0] if of else self._standing.best_number, outcome.evaluation)
        self._event("certified" if isinstance(outcome, Entry) else "refused", detail)

    def result(self) -> SearchResult:
        """Where the run stands now."""
        standing, spec = self._standing, self.spec
        assert self._calibration is not None
        return SearchResult(
            run=spec.run,
            target=spec.target.name,
            hardware_key=spec.hardware.key,
            evaluated=standing.evaluated,
            failed=standing.failed,
            best=standing.best,
            baseline=fastest_baselines(self._calibration),
            seconds=self._seconds(),
            stopped=self._stopped,
        )

    def _world(self) -> Outside:
        if self._recording is not None:
            return Replay(self._recording, self._store.arrivals(self.spec.run), self._store.asks(self.spec.run))
        return Live(self._settings, self.spec, self._store)

    def _calibrate(self, executor: Executor, listen: Listener) -> None:
        """Time the baselines, unless an earlier sitting has done so."""
        self._tell(listen, "calibrating")
        self._calibration = self._store.run(self.spec.run).calibration
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

    def _restored(self, world: Outside) -> Course:
        assert self._calibration is not None
        spec, found = self.spec, self._calibration
        admission = Admission(self._language, spec.target.digest)
        minds = Minds(self._proposer, self._policy, world.briefing(found), admission)
        course = Course(
            spec, self._store, minds,
            standing=self._standing, spending=self._spending, earlier=world.earlier(found),
        )  # fmt: skip
        self._standing.rest.calibrated(found)
        course.restore()
        self._codes = course.codes
        return course

    def _lanes(self, world: Outside, open_: ExitStack) -> Lanes | None:
        if not self.spec.models:
            return None
        lanes = Lanes(world.client(), self.spec.lanes)
        open_.callback(lanes.close)
        return lanes

    def _loop(self, world: Outside, course: Course, traffic: Traffic, listen: Listener) -> None:
        """One thing that came in at a time: what is asked next depends on the order of things and on nothing else."""
        while True:
            late = world.is_late(self._seconds())
            if self._limit(traffic) in _CONTENT:
                traffic.skip("the search has come to its end")
            traffic.start(self._job, asks=not late)
            goes_on = not late and self._goes_on(world, course, traffic)
            while goes_on and traffic.has_room():
                goes_on = course.ask() and self._goes_on(world, course, traffic)
                traffic.start(self._job, asks=True)
            searches = course.searches or goes_on
            self._tell(listen, "searching" if searches else "confirming", traffic)
            if not traffic.flights or (late and world.leaves(traffic.flights)):
                return
            traffic.land(world.choose)

    def _goes_on(self, world: Outside, course: Course, traffic: Traffic) -> bool:
        """Whether a step may be begun, once there is room for it."""
        return not course.declined and self._limit(traffic) is None and world.may_begin(self._standing.begun)

    def _limit(self, traffic: Traffic) -> StopReason | None:
        """What allows no further step, what is under way counted at its worst."""
        return self._standing.limit(self._spending.totals(), traffic.judging + traffic.waiting + traffic.asked)

    def _why(self, course: Course, traffic: Traffic) -> Stopped:
        """Why nothing is under way any more."""
        if (held := traffic.held) is not None and (scarce := traffic.scarce(held)) is not None:
            return scarce
        limit = self._limit(traffic)
        if limit == "budget" and self._standing.evaluated < self.spec.evals:
            return "time"  # the last steps were begun, and it got too late for their questions
        return limit or ("exhausted" if course.declined else "time")

    def _job(self, work: Work) -> Job:
        assert self._calibration is not None
        spec, confirms = self.spec, work.purpose == "confirm"
        return Job(
            target=spec.target, candidate=work.candidate, hardware=spec.hardware, purpose=work.purpose,
            timing=confirmation(spec.evals) if confirms else TimingPlan(),
            baselines={w: (name,) for w, name in fastest_baselines(self._calibration).items()},
            threads=spec.threads, cache_dir=str(self._settings.cache), counters=confirms, sandbox=spec.sandbox,
            known={} if confirms else dict(self._codes), rest_us=self._standing.rest.us,
        )  # fmt: skip

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _event(self, kind: EventKind, detail: str = "") -> None:
        self._store.add_event(self.spec.run, Event(kind=kind, at=_now(), detail=detail))

    def _tell(self, listen: Listener, stage: Stage, traffic: Traffic | None = None) -> None:
        standing, minutes = self._standing, self.spec.minutes
        seconds, spent = self._seconds(), self._spending.totals()
        listen(
            Progress(
                stage=stage,
                evaluated=standing.evaluated,
                failed=standing.failed,
                in_flight=traffic.judging if traffic else 0,
                budget=self.spec.evals,
                seconds=seconds,
                seconds_left=None if minutes is None else max(0.0, minutes * 60 - seconds),
                best=standing.best_passed,
                best_label=standing.best_label,
                estimated_us=standing.estimated_us,
                asked=traffic.asked if traffic else 0,
                tokens=spent.tokens,
                usd=spent.usd,
            )
        )


def rehearse(settings: Settings, target_name: str, executor: str = "local") -> Rehearsal:
    """What a new run by these settings would ask first. Nothing is written. Raises what `Session.start` raises."""
    return _rehearse(settings, commission(settings, target_name, executor))


def _rehearse(settings: Settings, spec: RunSpec) -> Rehearsal:
    proposer = _proposer(settings, spec)
    return rehearsal.rehearse(spec, proposer, _policy(spec, proposer), briefing_of(settings, spec))


def _again(spec: RunSpec, run: str, created_at: str) -> RunSpec:
    """The same task as another run."""
    return spec.model_copy(update={"run": run, "created_at": created_at})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _proposer(settings: Settings, spec: RunSpec) -> Proposer:
    kind = PROPOSERS.load(spec.proposer)
    chosen = {"prompts": settings.prompts, "tuning": spec.tuning}
    fields = {name: value for name, value in chosen.items() if value is not None and name in kind.Config.model_fields}
    proposer: Proposer = kind(kind.Config(**fields), seed=spec.seed, models=spec.models)
    return proposer


def _policy(spec: RunSpec, proposer: Proposer) -> Policy:
    kind = POLICIES.load(spec.policy)
    policy: Policy = kind(kind.Config(), seed=spec.seed, changes=proposer.changes)
    return policy
