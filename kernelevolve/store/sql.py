"""The store in one SQLite file."""

import difflib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, RowMapping, select

from kernelevolve.errors import StoreError
from kernelevolve.schema import (
    Answer,
    Ask,
    Brief,
    Calibration,
    Candidate,
    Evaluation,
    Event,
    Exchange,
    ModelRequest,
    Proposal,
    Purpose,
    Run,
    RunSpec,
    Step,
)
from kernelevolve.store import mailbox, queries, rows
from kernelevolve.store.base import (
    Answered,
    Arrival,
    Asked,
    Declined,
    Judged,
    RunSummary,
    Statistic,
    UnknownRunError,
)
from kernelevolve.store.engine import make_engine, reading, writing
from kernelevolve.store.faults import translated
from kernelevolve.store.objects import digest_of_bytes
from kernelevolve.store.reader import Reader
from kernelevolve.store.tables import CalibrationRow, EventRow, RunRow, StatisticRow
from kernelevolve.store.upgrade import upgrade


class SqlStore:
    """See `Store`. Sources and records live in the same file as the rows: one file, however many runs."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path
        self._runs: set[str] = set()
        """those that were seen: none is ever removed"""

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False, timeout_s: float = 30.0) -> Self:
        """Open the file, made and migrated as needed; `read_only` does neither.

        A lock of another process is waited for `timeout_s` seconds. Raises `StoreError`.
        """
        if read_only and not path.is_file():
            raise StoreError(f"there is no store at {path}", remedy="start a search, or name the folder of the runs")
        with translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            engine = make_engine(path, read_only=read_only, timeout_s=timeout_s)
            upgrade(engine, path, read_only=read_only)
        return cls(engine, path)

    def close(self) -> None:
        """Let go of the file. The last process to do so folds the write-ahead log into it."""
        with translated(self._path):
            self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create_run(self, spec: RunSpec) -> None:
        """See `Store`."""
        with self._writing(lasting=True) as connection:
            row = {
                "name": spec.run,
                "created_at": spec.created_at,
                "target": spec.target.name,
                "target_digest": spec.target.digest,
                "hardware_key": spec.hardware.key,
                "language": spec.language,
                "proposer": spec.proposer,
                "policy": spec.policy,
                "evals": spec.evals,
                "threads": spec.threads,
                "record": rows.keep(connection, spec),
            }
            connection.execute(rows.into(RunRow), row)

    def add_ask(self, run: str, number: int, brief: Brief) -> None:
        """See `Store`."""
        with self._writing(run) as connection:
            rows.add_ask(connection, run, number, brief)

    def add_decline(self, run: str, number: int) -> None:
        """See `Store`."""
        with self._writing(run) as connection:
            rows.add_arrival(connection, run, "declined", number)

    def add_exchange(self, run: str, number: int, exchange: Exchange) -> None:
        """See `Store`."""
        with self._writing(run, lasting=True) as connection:
            rows.add_exchange(connection, run, number, exchange)

    def add_proposal(self, run: str, number: int, proposal: Proposal, candidate: Candidate | None) -> None:
        """See `Store`."""
        with self._writing(run) as connection:
            rows.add_proposal(connection, run, number, proposal, candidate)

    def add_evaluation(self, run: str, number: int, evaluation: Evaluation) -> None:
        """See `Store`."""
        with self._writing(run, lasting=True) as connection:
            rows.add_evaluation(connection, run, number, evaluation)

    def add_calibration(self, run: str, calibration: Calibration) -> None:
        """See `Store`."""
        with self._writing(run, lasting=True) as connection:
            row = {"run": run, "created_at": rows.now(), "record": rows.keep(connection, calibration)}
            connection.execute(rows.into(CalibrationRow), row)

    def add_event(self, run: str, event: Event) -> None:
        """See `Store`."""
        with self._writing(run) as connection:
            row = {"run": run, "kind": event.kind, "at": event.at, "detail": event.detail}
            connection.execute(rows.into(EventRow), row)

    def add_statistics(self, run: str, number: int, values: Mapping[str, float]) -> None:
        """See `Store`."""
        for name, value in values.items():
            if not math.isfinite(value):
                raise StoreError(
                    f"statistic {name!r} of step {number} of {run} is {value}",
                    remedy="have the policy leave out a statistic that has no value yet",
                )
        found = [{"run": run, "number": number, "name": name, "value": value} for name, value in values.items()]
        with self._writing(run) as connection:
            if found:
                connection.execute(rows.into(StatisticRow), found)

    def run(self, name: str) -> Run:
        """See `Store`."""
        with self._reading(name) as connection:
            reader = Reader(connection, self._path)
            calibration = connection.execute(queries.latest_calibration(name)).scalar_one_or_none()
            return Run(
                spec=reader.record(RunSpec, connection.execute(queries.spec(name)).scalar_one()),
                calibration=reader.record(Calibration, calibration) if calibration else None,
                steps=_steps(connection, reader, name),
                events=tuple(
                    Event.model_validate(dict(row)) for row in connection.execute(queries.events(name)).mappings()
                ),
            )

    def asks(self, run: str) -> tuple[Ask, ...]:
        """See `Store`."""
        with self._reading(run) as connection:
            reader = Reader(connection, self._path)
            said: dict[int, list[Exchange]] = defaultdict(list)
            for row in connection.execute(queries.exchanges(run)):
                said[row.number].append(reader.record(Exchange, row.record))
            return tuple(
                Ask(number=row.number, brief=reader.record(Brief, row.brief), exchanges=tuple(said[row.number]))
                for row in connection.execute(queries.asks(run))
            )

    def arrivals(self, run: str) -> tuple[Arrival, ...]:
        """See `Store`."""
        with self._reading(run) as connection:
            reader = Reader(connection, self._path)
            return tuple(_arrival(row, reader) for row in connection.execute(queries.arrivals(run)).mappings())

    def evaluations(self, run: str, purpose: Purpose) -> tuple[Evaluation, ...]:
        """See `Store`."""
        with self._reading(run) as connection:
            reader = Reader(connection, self._path)
            found = connection.execute(queries.evaluations(run, purpose))
            return tuple(reader.evaluation(row.record) for row in found)

    def statistics(self, run: str) -> tuple[Statistic, ...]:
        """See `Store`."""
        with self._reading(run) as connection:
            found = connection.execute(queries.statistics(run)).mappings()
            return tuple(Statistic.model_validate(dict(row)) for row in found)

    def specs(self) -> tuple[RunSpec, ...]:
        """See `Store`."""
        with self._reading() as connection:
            reader = Reader(connection, self._path)
            return tuple(reader.record(RunSpec, digest) for digest in connection.execute(queries.specs()).scalars())

    def summaries(self) -> tuple[RunSummary, ...]:
        """See `Store`."""
        with self._reading() as connection:
            found = connection.execute(queries.summaries()).mappings()
            return tuple(RunSummary.model_validate(dict(row)) for row in found)

    def find_evaluation(
        self,
        target_digest: str,
        hardware_key: str,
        code_digest: str,
        *,
        normal: str | None = None,
        threads: int | None = None,
    ) -> Evaluation | None:
        """See `Store`."""
        with self._reading() as connection:
            found = queries.same_code(normal is not None, threads is not None)
            wanted = {"target": target_digest, "hardware": hardware_key, "code": code_digest}
            digest = connection.execute(found, {**wanted, "normal": normal, "threads": threads}).scalar_one_or_none()
            return Reader(connection, self._path).evaluation(digest) if digest else None

    def add_question(self, run: str, request: ModelRequest) -> None:
        """See `Store`."""
        with self._writing(run) as connection:
            mailbox.add_question(connection, run, request)

    def open_questions(self, run: str) -> tuple[ModelRequest, ...]:
        """See `Store`."""
        with self._reading(run) as connection:
            reader = Reader(connection, self._path)
            found = connection.execute(queries.questions(run))
            return tuple(
                reader.record(ModelRequest, row.record) for row in found if row.answer is None and row.exchange is None
            )

    def add_answer(self, run: str, step: int, attempt: int, answer: Answer) -> None:
        """See `Store`."""
        with self._writing(run, lasting=True) as connection:
            mailbox.add_answer(connection, run, step, attempt, answer)

    def find_answer(self, run: str, step: int, attempt: int) -> Answer | None:
        """See `Store`."""
        with self._reading(run) as connection:
            found = mailbox.find(connection, run, step, attempt)
            if found is None or found["answer"] is None:
                return None
            return Reader(connection, self._path).answer(found["answer"])

    def put_object(self, data: bytes) -> str:
        """See `Store`."""
        digest = digest_of_bytes(data)
        with self._writing() as connection:
            rows.keep_objects(connection, {digest: data})
        return digest

    def get_object(self, digest: str) -> bytes:
        """See `Store`."""
        with self._reading() as connection:
            return Reader(connection, self._path).fetch(digest)

    @contextmanager
    def _reading(self, run: str | None = None) -> Iterator[Connection]:
        with translated(self._path), reading(self._engine) as connection:
            self._require(connection, run)
            yield connection

    @contextmanager
    def _writing(self, run: str | None = None, *, lasting: bool = False) -> Iterator[Connection]:
        with translated(self._path), writing(self._engine, lasting=lasting) as connection:
            self._require(connection, run)
            yield connection

    def _require(self, connection: Connection, run: str | None) -> None:
        if run is None or run in self._runs:
            return
        if connection.execute(queries.spec(run)).first():
            self._runs.add(run)
            return
        names = list(connection.execute(select(RunRow.name).order_by(RunRow.id.desc())).scalars())
        close = difflib.get_close_matches(run, names) or names[:3]
        remedy = f"did you mean {' or '.join(close)}?" if close else "the store holds no runs yet: start a search"
        raise UnknownRunError(f"there is no run {run!r} in {self._path}", remedy=remedy)


def _steps(connection: Connection, reader: Reader, run: str) -> tuple[Step, ...]:
    said: dict[tuple[int, str], list[Evaluation]] = defaultdict(list)
    for row in connection.execute(queries.evaluations(run, "search", "confirm")):
        said[row.number, row.purpose].append(reader.evaluation(row.record))

    def step(row: RowMapping) -> Step:
        number = row["number"]
        candidate, evaluated = row["candidate"], said[number, "search"]
        return Step(
            number=number,
            proposal=reader.record(Proposal, row["proposal"]),
            candidate=reader.record(Candidate, candidate) if candidate else None,
            evaluation=evaluated[0] if evaluated else None,
            confirmations=tuple(said[number, "confirm"]),
        )

    return tuple(step(row) for row in connection.execute(queries.steps(run)).mappings())


def _arrival(row: RowMapping, reader: Reader) -> Arrival:
    match row["kind"]:
        case "asked":
            return Asked(number=row["number"])
        case "declined":
            return Declined(number=row["number"])
        case "answered":
            return Answered(number=row["number"], attempt=row["attempt"])
        case _:
            return Judged(number=row["number"], evaluation=reader.evaluation(row["record"]))
