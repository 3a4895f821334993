"""A run in a file of JSON lines: what it was asked, and everything that came in, in the order in which it did."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kernelevolve.errors import StoreError, UsageError
from kernelevolve.schema import Ask, Brief, Calibration, CallFailed, Evaluation, Exchange, Record, Reused, RunSpec
from kernelevolve.store import Answered, Arrival, Asked, Declined, Judged, Store
from kernelevolve.store.objects import digest_of_bytes, pack, unpack, unpack_evaluation

FORMAT = 1

R = TypeVar("R", bound=Record)
Line = dict[str, Any]
"""A JSON object. Records are taken apart as in the store; `object` lines carry the parts, each once."""


@dataclass(frozen=True)
class Recording:
    """A run that has ended."""

    spec: RunSpec
    calibration: Calibration
    asks: Mapping[int, Ask]
    arrivals: tuple[Arrival, ...]
    stopped: str
    """as the search called it"""


def came_in(arrival: Arrival, asks: Mapping[int, Ask]) -> bool:
    """Whether an arrival was waited for: neither an ask, nor something that the search concluded by itself."""
    match arrival:
        case Answered(number=number, attempt=attempt):
            return not _is_skipped(exchange_of(asks[number], attempt))
        case Judged(evaluation=evaluation):
            return evaluation.candidate is not None and not is_reused(evaluation)
        case _:
            return False


def is_reused(evaluation: Evaluation) -> bool:
    """Whether an evaluation was taken over from an earlier run."""
    return any(isinstance(finding, Reused) for finding in evaluation.diagnostics)


def exchange_of(ask: Ask, attempt: int) -> Exchange:
    """The exchange of an attempt."""
    return next(exchange for exchange in ask.exchanges if exchange.request.attempt == attempt)


def write(store: Store, run: str, path: Path) -> None:
    """Put a run that has ended into a file, whole or not at all. Raises `UsageError` and `StoreError`."""
    kept = store.run(run)
    finished = [event.detail for event in kept.events if event.kind == "finished"]
    if kept.calibration is None or not finished:
        raise UsageError(f"run {run} has not ended", remedy=f"kernelevolve search --resume {run}")
    asks = {ask.number: ask for ask in store.asks(run)}
    recording = Recording(kept.spec, kept.calibration, asks, store.arrivals(run), finished[-1])
    text = "".join(f"{json.dumps(line, separators=(',', ':'), ensure_ascii=False)}\n" for line in _lines(recording))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError as error:
        raise StoreError(
            f"can't write {path}: {error.strerror}", remedy="check that you may write there and that the disk has room"
        ) from error


def read(path: Path) -> Recording:
    """The run in a file. Raises `UsageError` for one that isn't there, isn't a recording, or was cut off."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", remedy="search --record FILE writes one") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not lines or not isinstance(lines[0], dict) or lines[0].get("recording") != FORMAT:
        raise _damaged(path, f"its first line isn't that of a recording of format {FORMAT}")
    if "stopped" not in lines[-1]:
        raise _damaged(path, "its end is missing")
    try:
        return _recording(lines)
    except (KeyError, ValueError, StopIteration) as error:
        raise _damaged(path, str(error)) from error


class _Writer:
    """Remembers which parts were written."""

    def __init__(self) -> None:
        self._written: set[str] = set()

    def parts(self, record: Record) -> Iterator[Line]:
        """The lines of a record's parts that weren't written yet, itself included."""
        for digest, data in pack(record).objects.items():
            if digest not in self._written:
                self._written.add(digest)
                yield {"object": digest, "text": data.decode()}


def _lines(recording: Recording) -> Iterator[Line]:
    writer = _Writer()
    yield {"recording": FORMAT}
    yield from writer.parts(recording.spec)
    yield from writer.parts(recording.calibration)
    yield {"run": pack(recording.spec).digest, "calibration": pack(recording.calibration).digest}
    for arrival in recording.arrivals:
        match arrival:
            case Asked(number=number):
                brief = recording.asks[number].brief
                yield from writer.parts(brief)
                yield {"asked": number, "brief": pack(brief).digest}
            case Declined(number=number):
                yield {"declined": number}
            case Answered(number=number, attempt=attempt):
                exchange = exchange_of(recording.asks[number], attempt)
                yield from writer.parts(exchange)
                yield {"answered": number, "exchange": pack(exchange).digest}
            case Judged(number=number, evaluation=evaluation):
                yield from writer.parts(evaluation)
                yield {"judged": number, "evaluation": pack(evaluation).digest}
    yield {"stopped": recording.stopped}


class _Parts:
    """The parts of a file, as a `Source` of records."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._texts = {line["object"]: line["text"].encode() for line in lines if "object" in line}
        self._records: dict[tuple[type[Record], str], Record] = {}

    def fetch(self, digest: str) -> bytes:
        data: bytes = self._texts[digest]
        if digest_of_bytes(data) != digest:
            raise ValueError(f"the part {digest} was changed")
        return data

    def record(self, kind: type[R], digest: str) -> R:
        found = self._records.get((kind, digest))
        if not isinstance(found, kind):
            found = unpack(kind, digest, self)
            self._records[kind, digest] = found
        return found

    def evaluation(self, digest: str) -> Evaluation:
        return unpack_evaluation(digest, self)


def _recording(lines: Sequence[Line]) -> Recording:
    parts = _Parts(lines)
    head = next(line for line in lines if "run" in line)
    asks: dict[int, Ask] = {}
    arrivals: list[Arrival] = []
    for line in lines:
        if "asked" in line:
            number = line["asked"]
            asks[number] = Ask(number=number, brief=parts.record(Brief, line["brief"]))
            arrivals.append(Asked(number=number))
        elif "declined" in line:
            arrivals.append(Declined(number=line["declined"]))
        elif "answered" in line:
            ask, exchange = asks[line["answered"]], parts.record(Exchange, line["exchange"])
            asks[ask.number] = Ask(number=ask.number, brief=ask.brief, exchanges=(*ask.exchanges, exchange))
            arrivals.append(Answered(number=ask.number, attempt=exchange.request.attempt))
        elif "judged" in line:
            arrivals.append(Judged(number=line["judged"], evaluation=parts.evaluation(line["evaluation"])))
    return Recording(
        spec=parts.record(RunSpec, head["run"]),
        calibration=parts.record(Calibration, head["calibration"]),
        asks=asks,
        arrivals=tuple(arrivals),
        stopped=lines[-1]["stopped"],
    )


def _is_skipped(exchange: Exchange) -> bool:
    """Whether the search closed the question itself."""
    return isinstance(exchange.answer, CallFailed) and exchange.answer.tries == 0


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError(f"{path} is no recording, or a damaged one: {why}", remedy="record the run again")
