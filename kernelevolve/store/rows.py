"""What goes into the tables of one step, within a transaction."""

from datetime import UTC, datetime
from functools import cache

from sqlalchemy import Connection, Insert, insert
from sqlalchemy.dialects import sqlite

from kernelevolve.schema import Brief, Candidate, Evaluation, Exchange, Failed, Passed, Proposal, Record
from kernelevolve.store.engine import absent
from kernelevolve.store.objects import compress, pack
from kernelevolve.store.tables import (
    ArrivalRow,
    AskRow,
    Base,
    CandidateRow,
    EvaluationRow,
    ExchangeRow,
    ObjectRow,
    StepRow,
)


@cache
def into(kind: type[Base]) -> Insert:
    """The insertion into a table. One object for all: what SQLAlchemy works out about a statement stays with it."""
    return insert(kind)


@cache
def _unless_there(kind: type[Base]) -> Insert:
    return sqlite.insert(kind).on_conflict_do_nothing()


def keep(connection: Connection, record: Record) -> str:
    """Store a record with its parts; its digest."""
    packed = pack(record)
    keep_objects(connection, dict(packed.objects))
    return packed.digest


def keep_objects(connection: Connection, objects: dict[str, bytes]) -> None:
    """Store bytes by their digests, those that aren't there: most of a brief was in the one before it."""
    if rows := [{"digest": digest, "data": compress(objects[digest])} for digest in absent(connection, objects)]:
        connection.execute(_unless_there(ObjectRow), rows)


def now() -> str:
    """UTC, ISO 8601, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def add_ask(connection: Connection, run: str, number: int, brief: Brief) -> None:
    """A brief, and its place in the order."""
    row = {"run": run, "number": number, "created_at": now(), "change": brief.change, "brief": keep(connection, brief)}
    connection.execute(into(AskRow), row)
    add_arrival(connection, run, "asked", number)


def add_exchange(connection: Connection, run: str, number: int, exchange: Exchange) -> None:
    """An answer with its question, and its place in the order."""
    request, answer = exchange.request, exchange.answer
    row = {
        "run": run,
        "number": number,
        "attempt": request.attempt,
        "created_at": now(),
        "model": request.model,
        "outcome": answer.outcome,
        "input_tokens": answer.usage.input_tokens,
        "output_tokens": answer.usage.output_tokens,
        "cost_usd": answer.usage.cost_usd,
        "record": keep(connection, exchange),
    }
    connection.execute(into(ExchangeRow), row)
    add_arrival(connection, run, "answered", number, attempt=request.attempt)


def add_proposal(
    connection: Connection, run: str, number: int, proposal: Proposal, candidate: Candidate | None
) -> None:
    """A proposal, and the candidate that it became."""
    if candidate is not None:
        _add_candidate(connection, candidate)
    row = {
        "run": run,
        "number": number,
        "created_at": now(),
        "proposer": proposal.proposer,
        "change": proposal.lineage.change,
        "proposal": keep(connection, proposal),
        "candidate": candidate.digest if candidate else None,
    }
    connection.execute(into(StepRow), row)


def add_evaluation(connection: Connection, run: str, number: int, evaluation: Evaluation) -> None:
    """What the judge said, and its place in the order unless it is of no concern to the search."""
    row = {
        "run": run,
        "number": number,
        "created_at": now(),
        "purpose": evaluation.purpose,
        "outcome": evaluation.outcome,
        "stage": evaluation.stage if isinstance(evaluation, Failed) else None,
        "fitness": evaluation.fitness if isinstance(evaluation, Passed) else None,
        "record": keep(connection, evaluation),
    }
    identity = connection.execute(into(EvaluationRow).returning(EvaluationRow.id), row).scalar_one()
    if evaluation.purpose in ("search", "confirm"):
        add_arrival(connection, run, "judged", number, evaluation=identity)


def add_arrival(
    connection: Connection,
    run: str,
    kind: str,
    number: int,
    *,
    attempt: int | None = None,
    evaluation: int | None = None,
) -> None:
    """A place in the order."""
    row = {"run": run, "kind": kind, "number": number, "attempt": attempt, "evaluation": evaluation}
    connection.execute(into(ArrivalRow), row)


def _add_candidate(connection: Connection, candidate: Candidate) -> None:
    row = {
        "digest": candidate.digest,
        "code": candidate.code,
        "family": candidate.family,
        "normal": candidate.normal,
        "language": candidate.language,
        "record": keep(connection, candidate),
    }
    connection.execute(_unless_there(CandidateRow), row)
