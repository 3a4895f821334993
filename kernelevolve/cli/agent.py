"""The commands `agent ...`: answering a run's briefs from outside, by files."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kernelevolve import settings
from kernelevolve.cli import formats, output
from kernelevolve.cli.options import AsJson, RunsDir, SettingsFile
from kernelevolve.errors import UsageError
from kernelevolve.runs import Runs

if TYPE_CHECKING:
    from kernelevolve.cli.standing import RunStanding
    from kernelevolve.llm.desk import Desk, OpenBrief, Standing
    from kernelevolve.schema import ModelRequest

NOTHING_OPEN = 4

_EVERY_S = 0.5
"""Between two looks for an open brief."""

_CODES = "Exit codes: 0 done; 1 our own failure; 2 usage: it can't be done as asked; 4 no brief is open."

app = typer.Typer(
    help="Answer the briefs of a search with --proposer agent, by files.", no_args_is_help=True, epilog=_CODES
)

Run = Annotated[str, typer.Argument(help="Name of the run.")]
BriefName = Annotated[str, typer.Argument(metavar="BRIEF", help="STEP or STEP.ATTEMPT, as `next` and `list` show it.")]


@app.command("next", epilog=_CODES)
def next_brief(
    run: Run,
    *,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for a brief to be opened.")] = 0.0,
    again: Annotated[
        bool, typer.Option("--all", help="Where nothing else is open: also briefs that were handed out already.")
    ] = False,
    remember: Annotated[
        bool,
        typer.Option("--remember", help="You remember this run's answered briefs: what they have shown is only named."),
    ] = False,
    folder: RunsDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the next open brief. It is handed out to nobody else for half an hour."""
    with _desk(folder, file, run) as desk:
        brief = _wait(desk, wait, again)
        if brief is None:
            _tell_of_none(desk, folder, as_json=as_json)
            raise typer.Exit(NOTHING_OPEN)
        standing = desk.standing()
        request = desk.abridged(brief.request) if remember else brief.request
    if as_json:
        said = {"brief": brief.id, "system": request.system, "prompt": request.prompt}
        output.document({"run": run, **said, "standing": standing})
        return
    output.verbatim(f"{request.system}\n\n{request.prompt}".strip())
    output.note(f"brief {brief.id}; answer it with: kernelevolve agent answer {run} {brief.id} FILE{_in(folder)}")
    if standing != "searching":
        output.note(f"no search is running; the answer is taken up by: {_resume(run, folder)}")


@app.command("list")
def list_briefs(run: Run, folder: RunsDir = None, file: SettingsFile = None, as_json: AsJson = False) -> None:
    """List the open briefs of a run."""
    with _desk(folder, file, run) as desk:
        found, standing = desk.briefs(), desk.standing()
    if as_json:
        output.document({"run": run, "standing": standing, "briefs": [_digest(brief) for brief in found]})
        return
    if not found:
        output.note(_why_none(run, standing, 0, folder))
        return
    output.table(("BRIEF", ">CHARACTERS", "HANDED OUT"), [_row(brief) for brief in found])


@app.command()
def answer(
    run: Run,
    brief: BriefName,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The answer; - for standard input.")],
    *,
    folder: RunsDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Answer a brief. Kept at once; a search that isn't running takes it up when it is resumed."""
    text = _read(source)
    with _desk(folder, file, run, writes=True) as desk:
        request = desk.answer(brief, text)
        _tell(desk, request, "answered", folder, as_json=as_json)


@app.command()
def skip(
    run: Run,
    brief: BriefName,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record of the run.")] = "",
    folder: RunsDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Pass a brief over: it gets no answer, and its step counts against the budget of evaluations."""
    with _desk(folder, file, run, writes=True) as desk:
        request = desk.skip(brief, reason)
        _tell(desk, request, "skipped", folder, as_json=as_json)


@app.command()
def status(run: Run, folder: RunsDir = None, file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Show where a run stands: evaluations, the best so far, open briefs."""
    from kernelevolve.cli.standing import standing_of

    chosen = settings.load(file, runs=folder)
    found = standing_of(Runs(chosen.runs), run)
    if as_json:
        output.document(found)
        return
    _describe(found)


@contextmanager
def _desk(folder: Path | None, file: Path | None, run: str, *, writes: bool = False) -> "Iterator[Desk]":
    # Imported here: a command that needs no store starts in half the time.
    from kernelevolve.llm.desk import Desk
    from kernelevolve.store import SqlStore

    runs = Runs(settings.load(file, runs=folder).runs)
    if not runs.database.is_file():  # one that is opened to be written to would be made
        raise UsageError(f"there is no store at {runs.database}", remedy="name the folder of the runs with --runs")
    with SqlStore.open(runs.database, read_only=not writes) as store:
        yield Desk(runs, store, run)


def _wait(desk: "Desk", seconds: float, again: bool) -> "OpenBrief | None":
    until = time.monotonic() + seconds
    while (brief := desk.take(again=again)) is None and (left := until - time.monotonic()) > 0:
        if desk.standing() == "ended":
            return None
        time.sleep(min(_EVERY_S, left))
    return brief


def _read(source: Path) -> str:
    try:
        return (sys.stdin.buffer.read() if source == Path("-") else source.read_bytes()).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read {source}: {error}", remedy="name a text file, or - for standard input") from error


def _tell(desk: "Desk", request: "ModelRequest", how: str, folder: Path | None, *, as_json: bool) -> None:
    from kernelevolve.llm.desk import brief_id

    brief, standing = brief_id(request), desk.standing()
    if as_json:
        output.document({"run": desk.run, "brief": brief, "outcome": how, "standing": standing})
        return
    output.text(f"{how} brief {brief}")
    if standing != "searching":
        output.note(f"no search is running; it is taken up by: {_resume(desk.run, folder)}")


def _tell_of_none(desk: "Desk", folder: Path | None, *, as_json: bool) -> None:
    standing, left = desk.standing(), len(desk.briefs())
    if as_json:
        output.document({"run": desk.run, "brief": None, "standing": standing, "open": left})
    output.note(_why_none(desk.run, standing, left, folder))


def _why_none(run: str, standing: "Standing", left: int, folder: Path | None) -> str:
    if left:
        return f"{left} open, all of them handed out already; --all hands them out again"
    if standing == "ended":
        return f"run {run} has ended: no brief will come"
    if standing == "stopped":
        return f"no search is running; go on with: {_resume(run, folder)}"
    return "no brief is open just now: the search is judging, or still starting; --wait waits for one"


def _in(folder: Path | None) -> str:
    return "" if folder is None else f" --runs {folder}"


def _resume(run: str, folder: Path | None) -> str:
    return f"kernelevolve search --resume {run}{_in(folder)}"


def _digest(brief: "OpenBrief") -> dict[str, object]:
    return {"brief": brief.id, "characters": len(brief.request.prompt), "handed_out_at": brief.claimed_at}


def _row(brief: "OpenBrief") -> tuple[str, ...]:
    at = brief.claimed_at
    return brief.id, str(len(brief.request.prompt)), formats.moment(at.isoformat()) if at else "no"


def _describe(found: "RunStanding") -> None:
    output.text(f"{found.run}: {found.target} on {found.hardware}, {found.standing}")
    of_these = f", of which {found.unanswered} without a kernel in the answer" if found.unanswered else ""
    output.text(f"evaluated {found.evaluated} of {found.evals}, failed {found.failed}{of_these}")
    if found.best is None and found.estimate is not None:
        guess = found.estimate
        output.text(f"best estimate: {formats.microseconds(guess.estimated_us)} us, {guess.label}, step {guess.step}")
    elif found.best is None:
        output.text("best: nothing passed yet")
    else:
        best, state = found.best, "confirmed" if found.best.confirmed else "not confirmed"
        speedup = f"{formats.times(best.speedup)} {formats.interval(best.low, best.high)}"
        output.text(f"best: {speedup}, {best.label}, step {best.step}, {state}")
    output.text(f"open briefs: {' '.join(found.open_briefs) or 'none'}")
