"""Where a run stands, for whoever drives it from outside."""

from pydantic import Field

from kernelevolve.cli.summary import best_of, finished, verdict_on
from kernelevolve.llm.desk import Desk, Standing
from kernelevolve.runs import Runs
from kernelevolve.schema import EventKind, Failed, Record, Run, Triaged
from kernelevolve.store import SqlStore


class BestSoFar(Record):
    """The best candidate of a run."""

    step: int
    candidate: str = Field(description="digest")
    label: str
    speedup: float = Field(description="geometric mean over the search workloads, against the fastest baseline of each")
    low: float = Field(description="lower end of the speed-up's interval; selection goes by this")
    high: float = Field(description="upper end of the speed-up's interval")
    confirmed: bool = Field(description="measured a second time, in fresh processes")


class BestEstimate(Record):
    """The candidate that a static model holds for the fastest, where none is measured. Nothing was timed."""

    step: int
    label: str
    estimated_us: float = Field(description="geometric mean over the search workloads, microseconds")


class RunStanding(Record):
    """A run in a few lines."""

    run: str
    target: str
    hardware: str
    language: str
    proposer: str
    standing: Standing = Field(
        description="searching: a process waits for answers; stopped: none does, resume it; ended: no brief will come"
    )
    last_event: EventKind | None
    evaluated: int
    failed: int
    unanswered: int = Field(0, description="of the failed: skipped, refused, or without a kernel in the answer")
    evals: int = Field(description="total budget of evaluations")
    best: BestSoFar | None = Field(None, description="None while nothing passed")
    estimate: BestEstimate | None = Field(None, description="of a search that measures nothing")
    open_briefs: tuple[str, ...] = Field((), description="STEP.ATTEMPT of each")


def standing_of(runs: Runs, name: str) -> RunStanding:
    """Raises `StoreError`; `UnknownRunError` for a run that isn't there."""
    with SqlStore.open(runs.database, read_only=True) as store:
        run = store.run(name)
        desk = Desk(runs, store, name)
        return described(run, desk.standing(), tuple(brief.id for brief in desk.briefs()))


def described(run: Run, standing: Standing, open_briefs: tuple[str, ...]) -> RunStanding:
    """The record of a run that was read."""
    spec, steps = run.spec, finished(run)
    return RunStanding(
        run=spec.run,
        target=spec.target.name,
        hardware=spec.hardware.key,
        language=spec.language,
        proposer=spec.proposer,
        standing=standing,
        last_event=run.events[-1].kind if run.events else None,
        evaluated=len(steps),
        failed=sum(isinstance(verdict_on(step), Failed) for step in steps),
        unanswered=sum(step.evaluation is not None and step.candidate is None for step in steps),
        evals=spec.evals,
        best=best_so_far(run),
        estimate=best_estimate(run),
        open_briefs=open_briefs,
    )


def best_estimate(run: Run) -> BestEstimate | None:
    """The lowest estimate of a run; None where there is none."""
    found = [
        BestEstimate(step=step.number, label=step.candidate.label, estimated_us=step.evaluation.estimated_us)
        for step in run.steps
        if step.candidate is not None
        and isinstance(step.evaluation, Triaged)
        and step.evaluation.estimated_us is not None
    ]
    return min(found, key=lambda one: one.estimated_us, default=None)


def best_so_far(run: Run) -> BestSoFar | None:
    """The best of a run in one record; None while nothing passed."""
    best = best_of(run.steps)
    if best is None:
        return None
    low, high = best.passed.interval
    return BestSoFar(
        step=best.step,
        candidate=best.candidate.digest,
        label=best.candidate.label,
        speedup=best.passed.speedup,
        low=low,
        high=high,
        confirmed=best.confirmed,
    )
