"""The store in one SQLite file."""

import difflib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, RowMapping, insert, select
from sqlalchemy.dialects import sqlite

from kernelevolve.errors import StoreError
from kernelevolve.schema import (
    Calibration,
    Candidate,
    Evaluation,
    Event,
    Failed,
    Passed,
    Proposal,
    Purpose,
    Record,
    Run,
    RunSpec,
    Step,
)
from kernelevolve.store import queries
from kernelevolve.store.base import RunSummary, Statistic, UnknownRunError
from kernelevolve.store.engine import make_engine, reading, writing
from kernelevolve.store.faults import translated
from kernelevolve.store.objects import compress, digest_of_bytes, pack
from kernelevolve.store.reader import Reader
from kernelevolve.store.tables import (
    CalibrationRow,
    CandidateRow,
    EvaluationRow,
    EventRow,
    ObjectRow,
    RunRow,
    StatisticRow,
    StepRow,
)
from kernelevolve.store.upgrade import upgrade


class SqlStore:
    """See `Store`. Sources and records live in the same file as the rows: one file, however many runs."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path

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
        with self._writing() as connection:
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
                "record": _keep(connection, spec),
            }
            connection.execute(insert(RunRow).values(row))

    def add_proposal(self, run: str, number: int, proposal: Proposal, candidate: Candidate | None) -> None:
        """See `Store`."""
        with self._writing(run) as connection:
            if candidate is not None:
                _keep_candidate(connection, candidate)
            row = {
                "run": run,
                "number": number,
                "created_at": _now(),
                "proposer": proposal.proposer,
                "change": proposal.lineage.change,
                "proposal": _keep(connection, proposal),
                "candidate": candidate.digest if candidate else None,
            }
            connection.execute(insert(StepRow).values(row))

    def add_evaluation(self, run: str, number: int, evaluation: Evaluation) -> None:
        """See `Store`."""
        with self._writing(run) as connection:
            row = {
                "run": run,
                "number": number,
                "created_at": _now(),
                "purpose": evaluation.purpose,
                "outcome": evaluation.outcome,
                "stage": evaluation.stage if isinstance(evaluation, Failed) else None,
                "fitness": evaluation.fitness if isinstance(evaluation, Passed) else None,
                "record": _keep(connection, evaluation),
            }
            connection.execute(insert(EvaluationRow).values(row))

    def add_calibration(self, run: str, calibration: Calibration) -> None:
        """See `Store`."""
        with self._writing(run) as connection:
            row = {"run": run, "created_at": _now(), "record": _keep(connection, calibration)}
            connection.execute(insert(CalibrationRow).values(row))

    def add_event(self, run: str, event: Event) -> None:
        """See `Store`."""
        with self._writing(run) as connection:
            row = {"run": run, "kind": event.kind, "at": event.at, "detail": event.detail}
            connection.execute(insert(EventRow).values(row))

    def add_statistics(self, run: str, number: int, values: Mapping[str, float]) -> None:
        """See `Store`."""
        for name, value in values.items():
            if not math.isfinite(value):
                raise StoreError(
                    f"statistic {name!r} of step {number} of {run} is {value}",
                    remedy="have the policy leave out a statistic that has no value yet",
                )
        rows = [{"run": run, "number": number, "name": name, "value": value} for name, value in values.items()]
        with self._writing(run) as connection:
            if rows:
                connection.execute(insert(StatisticRow), rows)

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

    def evaluations(self, run: str, purpose: Purpose) -> tuple[Evaluation, ...]:
        """See `Store`."""
        with self._reading(run) as connection:
            reader = Reader(connection, self._path)
            rows = connection.execute(queries.evaluations(run, purpose))
            return tuple(reader.evaluation(row.record) for row in rows)

    def statistics(self, run: str) -> tuple[Statistic, ...]:
        """See `Store`."""
        with self._reading(run) as connection:
            rows = connection.execute(queries.statistics(run)).mappings()
            return tuple(Statistic.model_validate(dict(row)) for row in rows)

    def specs(self) -> tuple[RunSpec, ...]:
        """See `Store`."""
        with self._reading() as connection:
            reader = Reader(connection, self._path)
            return tuple(reader.record(RunSpec, digest) for digest in connection.execute(queries.specs()).scalars())

    def summaries(self) -> tuple[RunSummary, ...]:
        """See `Store`."""
        with self._reading() as connection:
            rows = connection.execute(queries.summaries()).mappings()
            return tuple(RunSummary.model_validate(dict(row)) for row in rows)

    def find_evaluation(
        self, target_digest: str, hardware_key: str, code_digest: str, *, threads: int | None = None
    ) -> Evaluation | None:
        """See `Store`."""
        with self._reading() as connection:
            found = queries.same_code(target_digest, hardware_key, code_digest, threads)
            digest = connection.execute(found).scalar_one_or_none()
            return Reader(connection, self._path).evaluation(digest) if digest else None

    def put_object(self, data: bytes) -> str:
        """See `Store`."""
        digest = digest_of_bytes(data)
        with self._writing() as connection:
            _keep_objects(connection, {digest: data})
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
    def _writing(self, run: str | None = None) -> Iterator[Connection]:
        with translated(self._path), writing(self._engine) as connection:
            self._require(connection, run)
            yield connection

    def _require(self, connection: Connection, run: str | None) -> None:
        if run is None or connection.execute(queries.spec(run)).first():
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


def _keep(connection: Connection, record: Record) -> str:
    packed = pack(record)
    _keep_objects(connection, packed.objects)
    return packed.digest


def _keep_candidate(connection: Connection, candidate: Candidate) -> None:
    row = {
        "digest": candidate.digest,
        "code": candidate.code,
        "family": candidate.family,
        "language": candidate.language,
        "record": _keep(connection, candidate),
    }
    connection.execute(sqlite.insert(CandidateRow).values(row).on_conflict_do_nothing())


def _keep_objects(connection: Connection, objects: Mapping[str, bytes]) -> None:
    rows = [{"digest": digest, "data": compress(data)} for digest, data in objects.items()]
    connection.execute(sqlite.insert(ObjectRow).on_conflict_do_nothing(), rows)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
