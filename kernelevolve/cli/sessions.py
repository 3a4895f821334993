"""How a search begins from the command line, and how it is interrupted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kernelevolve.cli import output
from kernelevolve.cli.waste import money
from kernelevolve.errors import UsageError
from kernelevolve.runs import Runs
from kernelevolve.schema import RunSpec
from kernelevolve.settings import Settings

if TYPE_CHECKING:
    from kernelevolve.llm.budget import Forecast
    from kernelevolve.search import Rehearsal, Session

INTERRUPTED = 130


@dataclass(frozen=True)
class Wanted:
    """Which run is meant: a new one of a target, one that is there, or one out of a recording."""

    target: str | None
    resume: str | None
    replay: Path | None
    triage: bool


def session_of(chosen: Settings, wanted: Wanted) -> "Session":
    """The sitting that is meant. Raises `UsageError`, and what a session raises."""
    from kernelevolve.recording import read
    from kernelevolve.search import TRIAGE, Session

    _check(wanted)
    recording = read(wanted.replay) if wanted.replay else None
    if wanted.resume is not None:
        session = Session.resume(chosen, wanted.resume, recording)
        if wanted.triage and session.spec.executor != TRIAGE:
            raise UsageError(f"run {wanted.resume} is one with its device", remedy="go on with it without --triage")
        return session
    if recording is not None:
        return Session.replay(chosen, recording)
    return Session.start(chosen, wanted.target or "", TRIAGE if wanted.triage else "local")


def rehearse(chosen: Settings, wanted: Wanted, *, as_json: bool) -> None:
    """Show the first question of a new run, and what it may cost."""
    from kernelevolve.search import TRIAGE
    from kernelevolve.search import rehearse as rehearsed

    if wanted.target is None or wanted.resume or wanted.replay:
        raise UsageError("a dry run is one of a new search", remedy="kernelevolve search TARGET --dry-run")
    found = rehearsed(chosen, wanted.target, TRIAGE if wanted.triage else "local")
    if as_json:
        forecasts = {name: forecast.model_dump(mode="json") for name, forecast in found.forecasts.items()}
        output.document({"before": found.before, "request": found.request, "forecasts": forecasts})
        return
    if found.request is None:
        output.text("this search asks no model")
        return
    output.verbatim(f"{found.request.system}\n\n{found.request.prompt}")
    _forecast(found)


def announce(session: "Session", wanted: Wanted) -> None:
    """Say which run it is, how much goes on at once, and what a new one may cost."""
    spec = session.spec
    output.note(f"run: {spec.run}")
    output.note(f"at once: {concurrency(spec)}")
    if wanted.target is not None and any(model.protocol != "mailbox" for model in spec.models):
        _forecast(session.rehearse())


def concurrency(spec: RunSpec) -> str:
    """How much goes on side by side."""
    judges = f"{spec.workers} evaluation{'s' if spec.workers > 1 else ''}"
    if not spec.models:
        return judges
    return f"{judges}, {spec.lanes} question{'s' if spec.lanes > 1 else ''} to {', '.join(m.name for m in spec.models)}"


@contextmanager
def resumable(session: "Session", chosen: Settings, wanted: Wanted) -> Iterator[None]:
    """Turn Ctrl-C into a word on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        where = "" if chosen.runs == Path("runs") else f" --runs {chosen.runs}"
        how = f" --replay {wanted.replay}" if wanted.replay else ""
        output.note(f"interrupted; go on with: kernelevolve search --resume {session.spec.run}{how}{where}")
        raise typer.Exit(INTERRUPTED) from None


def write_recording(chosen: Settings, run: str, path: Path) -> None:
    """Write a run to a file."""
    from kernelevolve.recording import write
    from kernelevolve.store import SqlStore

    with SqlStore.open(Runs(chosen.runs).database, read_only=True) as store:
        write(store, run, path)
    output.note(f"recorded in {path}; live through it again with: kernelevolve search --replay {path}")


def _check(wanted: Wanted) -> None:
    if wanted.replay is not None and (wanted.target is not None or wanted.triage):
        raise UsageError("a recording names its target itself", remedy="kernelevolve search --replay FILE")
    if wanted.replay is None and (wanted.target is None) == (wanted.resume is None):
        raise UsageError(
            "a search needs either a target or --resume RUN", remedy="kernelevolve targets list shows them"
        )


def _forecast(found: "Rehearsal") -> None:
    for name, forecast in found.forecasts.items():
        output.note(f"may cost, if {name} is asked for every kernel: {_in_words(forecast)}")


def _in_words(forecast: "Forecast") -> str:
    tokens = f"{forecast.tokens_low:,} to {forecast.tokens_high:,} tokens"
    if forecast.usd_low is None:
        return f"{tokens}; its price isn't known"
    return f"{money(forecast.usd_low)} to {money(forecast.usd_high)} ({tokens})"
