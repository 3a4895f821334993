"""The tables. Records are JSON objects kept by digest; the columns beside them are what one queries by."""

from sqlalchemy import (
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

OBJECT = "objects.digest"
RUN = "runs.name"


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can name it too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ObjectRow(Base):
    """Bytes by their SHA-256: records as JSON, sources as text."""

    __tablename__ = "objects"

    digest: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary, doc="compressed by zlib; the digest is of what is inside")


class RunRow(Base):
    """A run (`RunSpec`)."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[str]
    target: Mapped[str] = mapped_column(doc="name")
    target_digest: Mapped[str]
    hardware_key: Mapped[str]
    language: Mapped[str]
    proposer: Mapped[str]
    policy: Mapped[str]
    evals: Mapped[int]
    threads: Mapped[int]
    record: Mapped[str] = mapped_column(ForeignKey(OBJECT))


class CandidateRow(Base):
    """A candidate; one row however many steps came upon it."""

    __tablename__ = "candidates"

    digest: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(index=True)
    family: Mapped[str]
    normal: Mapped[str | None] = mapped_column(
        index=True, doc="None where it was stored before duplicates were looked for"
    )
    language: Mapped[str]
    record: Mapped[str] = mapped_column(ForeignKey(OBJECT))


class StepRow(Base):
    """A proposal in a run, and the candidate that it became."""

    __tablename__ = "steps"

    run: Mapped[str] = mapped_column(ForeignKey(RUN), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[str]
    proposer: Mapped[str]
    change: Mapped[str]
    proposal: Mapped[str] = mapped_column(ForeignKey(OBJECT))
    candidate: Mapped[str | None] = mapped_column(ForeignKey("candidates.digest"), index=True)


class EvaluationRow(Base):
    """What the judge said. A failure has a stage and no fitness; nothing stands in for one."""

    __tablename__ = "evaluations"
    __table_args__ = (
        ForeignKeyConstraint(["run", "number"], ["steps.run", "steps.number"]),
        CheckConstraint("(outcome = 'passed') = (fitness IS NOT NULL)", name="fitness"),
        CheckConstraint("(outcome = 'failed') = (stage IS NOT NULL)", name="stage"),
        Index("ix_evaluations_step", "run", "number"),
        Index("uq_evaluations_search", "run", "number", unique=True, sqlite_where=text("purpose = 'search'")),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str]
    number: Mapped[int]
    created_at: Mapped[str]
    purpose: Mapped[str]
    outcome: Mapped[str]
    stage: Mapped[str | None]
    fitness: Mapped[float | None] = mapped_column(Double)
    record: Mapped[str] = mapped_column(ForeignKey(OBJECT))


class CalibrationRow(Base):
    """The baselines' times, at the start of a sitting."""

    __tablename__ = "calibrations"

    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey(RUN), index=True)
    created_at: Mapped[str]
    record: Mapped[str] = mapped_column(ForeignKey(OBJECT))


class EventRow(Base):
    """Something that happened to a run as a whole."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey(RUN), index=True)
    kind: Mapped[str]
    at: Mapped[str]
    detail: Mapped[str]


class StatisticRow(Base):
    """A number that a policy reported at a step."""

    __tablename__ = "statistics"
    __table_args__ = (ForeignKeyConstraint(["run", "number"], ["steps.run", "steps.number"]),)

    run: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float] = mapped_column(Double)


class AskRow(Base):
    """The brief of a step, kept before anybody is asked."""

    __tablename__ = "asks"

    run: Mapped[str] = mapped_column(ForeignKey(RUN), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[str]
    change: Mapped[str]
    brief: Mapped[str] = mapped_column(ForeignKey(OBJECT))


class ExchangeRow(Base):
    """A question to a model with its answer (`Exchange`), kept before it is read."""

    __tablename__ = "exchanges"
    __table_args__ = (ForeignKeyConstraint(["run", "number"], ["asks.run", "asks.number"]),)

    run: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[str]
    model: Mapped[str]
    outcome: Mapped[str]
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    cost_usd: Mapped[float | None] = mapped_column(Double, doc="None where the price isn't known")
    record: Mapped[str] = mapped_column(ForeignKey(OBJECT))


class QuestionRow(Base):
    """A question that waits for whoever answers by file (`ModelRequest`)."""

    __tablename__ = "questions"

    run: Mapped[str] = mapped_column(ForeignKey(RUN), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[str]
    record: Mapped[str] = mapped_column(ForeignKey(OBJECT))


class AnswerRow(Base):
    """The answer to such a question, as it was handed in."""

    __tablename__ = "answers"
    __table_args__ = (
        ForeignKeyConstraint(
            ["run", "number", "attempt"], ["questions.run", "questions.number", "questions.attempt"]
        ),
    )  # fmt: skip

    run: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[str]
    record: Mapped[str] = mapped_column(ForeignKey(OBJECT))


class ArrivalRow(Base):
    """The one order of everything that a search's decisions depend on: asks, answers and evaluations."""

    __tablename__ = "arrivals"

    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey(RUN), index=True)
    kind: Mapped[str] = mapped_column(doc="asked, declined, answered or judged")
    number: Mapped[int] = mapped_column(doc="of the step")
    attempt: Mapped[int | None] = mapped_column(doc="of the exchange, where one was answered")
    evaluation: Mapped[int | None] = mapped_column(ForeignKey("evaluations.id"), doc="where one was judged")
