"""Questions that somebody answers by file, within a transaction."""

from sqlalchemy import Connection, RowMapping

from kernelevolve.errors import StoreError, UsageError
from kernelevolve.schema import Answer, ModelRequest
from kernelevolve.store import queries
from kernelevolve.store.objects import pack
from kernelevolve.store.rows import into, keep, now
from kernelevolve.store.tables import AnswerRow, QuestionRow


def add_question(connection: Connection, run: str, request: ModelRequest) -> None:
    """Open a question, unless it is there. Raises `StoreError` where another one is in its place."""
    key = {"run": run, "number": request.step, "attempt": request.attempt}
    known = find(connection, run, request.step, request.attempt)
    if known is None:
        row = {**key, "created_at": now(), "record": keep(connection, request)}
        connection.execute(into(QuestionRow), row)
    elif known["record"] != pack(request).digest:
        raise StoreError(
            f"{_name(run, request.step, request.attempt)} was opened with another text",
            remedy="resume the run with the version of kernelevolve that began it",
        )


def add_answer(connection: Connection, run: str, step: int, attempt: int, answer: Answer) -> None:
    """Answer an open question. Raises `UsageError` for one that isn't."""
    known = find(connection, run, step, attempt)
    if known is None:
        raise UsageError(f"{_name(run, step, attempt)} was never asked", remedy="answer one of the open questions")
    if known["answer"] is not None or known["exchange"] is not None:
        state = "is closed" if known["answer"] is None else "has its answer already"
        raise UsageError(f"{_name(run, step, attempt)} {state}", remedy="answer one of the open questions")
    row = {"run": run, "number": step, "attempt": attempt, "created_at": now(), "record": keep(connection, answer)}
    connection.execute(into(AnswerRow), row)


def find(connection: Connection, run: str, step: int, attempt: int) -> RowMapping | None:
    """The row of a question, with the objects of its answer and its exchange where there are any."""
    # One row at most: whoever waits for an answer looks often, while kernels are being timed.
    return connection.execute(queries.questions(run, (step, attempt))).mappings().one_or_none()


def _name(run: str, step: int, attempt: int) -> str:
    return f"question {step} of {run}" + (f", attempt {attempt}," if attempt else "")
