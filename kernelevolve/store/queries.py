"""The questions that the store asks its tables."""

from functools import cache

from sqlalchemy import Executable, bindparam, func, or_, select

from kernelevolve.schema import Purpose
from kernelevolve.store.tables import (
    AnswerRow,
    ArrivalRow,
    AskRow,
    CalibrationRow,
    CandidateRow,
    EvaluationRow,
    EventRow,
    ExchangeRow,
    QuestionRow,
    RunRow,
    StatisticRow,
    StepRow,
)


def spec(run: str) -> Executable:
    """Object of a run's `RunSpec`."""
    return select(RunRow.record).where(RunRow.name == run)


def specs() -> Executable:
    """Objects of every `RunSpec`, newest first."""
    return select(RunRow.record).order_by(RunRow.created_at.desc(), RunRow.id.desc())


def latest_calibration(run: str) -> Executable:
    """Object of a run's last calibration."""
    rows = select(CalibrationRow.record).where(CalibrationRow.run == run)
    return rows.order_by(CalibrationRow.id.desc()).limit(1)


def events(run: str) -> Executable:
    """Events of a run, in order."""
    return select(EventRow.kind, EventRow.at, EventRow.detail).where(EventRow.run == run).order_by(EventRow.id)


def steps(run: str) -> Executable:
    """Number, proposal and (None where there is none) candidate of each step: objects, in order."""
    rows = select(StepRow.number, StepRow.proposal, CandidateRow.record.label("candidate"))
    joined = rows.outerjoin(CandidateRow, CandidateRow.digest == StepRow.candidate)
    return joined.where(StepRow.run == run).order_by(StepRow.number)


def evaluations(run: str, *purposes: Purpose) -> Executable:
    """Step, purpose and object of a run's evaluations, in order."""
    rows = select(EvaluationRow.number, EvaluationRow.purpose, EvaluationRow.record)
    return rows.where(EvaluationRow.run == run, EvaluationRow.purpose.in_(purposes)).order_by(EvaluationRow.id)


def statistics(run: str) -> Executable:
    """Statistics of a run, by step, then by name."""
    rows = select(StatisticRow.number, StatisticRow.name, StatisticRow.value).where(StatisticRow.run == run)
    return rows.order_by(StatisticRow.number, StatisticRow.name)


def asks(run: str) -> Executable:
    """Number and object of each brief, in order."""
    return select(AskRow.number, AskRow.brief).where(AskRow.run == run).order_by(AskRow.number)


def exchanges(run: str) -> Executable:
    """Number and object of each exchange, by step and attempt."""
    rows = select(ExchangeRow.number, ExchangeRow.record).where(ExchangeRow.run == run)
    return rows.order_by(ExchangeRow.number, ExchangeRow.attempt)


def arrivals(run: str) -> Executable:
    """Kind, number, attempt and object of the evaluation of each arrival, in order."""
    rows = select(ArrivalRow.kind, ArrivalRow.number, ArrivalRow.attempt, EvaluationRow.record)
    joined = rows.outerjoin(EvaluationRow, EvaluationRow.id == ArrivalRow.evaluation)
    return joined.where(ArrivalRow.run == run).order_by(ArrivalRow.id)


def questions(run: str, only: tuple[int, int] | None = None) -> Executable:
    """Number, attempt, object, and whether it is answered or closed, of each question, by step and attempt.

    `only`: of the question with this step and attempt.
    """
    rows = select(
        QuestionRow.number,
        QuestionRow.attempt,
        QuestionRow.record,
        AnswerRow.record.label("answer"),
        ExchangeRow.record.label("exchange"),
    )
    for other in (AnswerRow, ExchangeRow):
        same = (other.run == QuestionRow.run) & (other.number == QuestionRow.number)
        rows = rows.outerjoin(other, same & (other.attempt == QuestionRow.attempt))
    if only is not None:
        rows = rows.where(QuestionRow.number == only[0], QuestionRow.attempt == only[1])
    return rows.where(QuestionRow.run == run).order_by(QuestionRow.number, QuestionRow.attempt)


@cache
def same_code(normal: bool, threads: bool) -> Executable:
    """Object of the latest search evaluation of the same `code`, on the same `target` and `hardware`.

    `normal`: or else of the same `normal`. `threads`: and with as many `threads`. The quoted words are parameters.
    """
    same = CandidateRow.code == bindparam("code")
    rows = (
        select(EvaluationRow.record)
        .join(StepRow, (StepRow.run == EvaluationRow.run) & (StepRow.number == EvaluationRow.number))
        .join(CandidateRow, CandidateRow.digest == StepRow.candidate)
        .join(RunRow, RunRow.name == StepRow.run)
        .where(
            or_(same, CandidateRow.normal == bindparam("normal")) if normal else same,
            RunRow.target_digest == bindparam("target"),
            RunRow.hardware_key == bindparam("hardware"),
            EvaluationRow.purpose == "search",
        )
    )
    if threads:
        rows = rows.where(RunRow.threads == bindparam("threads"))
    return rows.order_by(EvaluationRow.id.desc()).limit(1)


def summaries() -> Executable:
    """A row for each run, newest first, with the columns of `RunSummary`."""
    counts = (
        select(
            EvaluationRow.run,
            func.count().label("evaluated"),
            func.count(EvaluationRow.stage).label("failed"),
        )
        .where(EvaluationRow.purpose == "search")
        .group_by(EvaluationRow.run)
        .subquery()
    )
    # A confirmation comes after the evaluation that it looks at again, so the last one of a step counts.
    last_of_step = (
        select(func.max(EvaluationRow.id))
        .where(EvaluationRow.purpose.in_(["search", "confirm"]))
        .group_by(EvaluationRow.run, EvaluationRow.number)
    )
    best = (
        select(EvaluationRow.run, func.max(EvaluationRow.fitness).label("best"))
        .where(EvaluationRow.id.in_(last_of_step))
        .group_by(EvaluationRow.run)
        .subquery()
    )
    last_event = (
        select(EventRow.kind).where(EventRow.run == RunRow.name).order_by(EventRow.id.desc()).limit(1).scalar_subquery()
    )
    rows = select(
        RunRow.name.label("run"),
        RunRow.target,
        RunRow.hardware_key,
        RunRow.created_at,
        RunRow.evals,
        func.coalesce(counts.c.evaluated, 0).label("evaluated"),
        func.coalesce(counts.c.failed, 0).label("failed"),
        best.c.best,
        last_event.label("last_event"),
    )
    joined = rows.outerjoin(counts, counts.c.run == RunRow.name).outerjoin(best, best.c.run == RunRow.name)
    return joined.order_by(RunRow.created_at.desc(), RunRow.id.desc())
