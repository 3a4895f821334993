"""The commands `runs ...`: searches that were made, and their reports."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kernelevolve import settings
from kernelevolve.cli import formats, output
from kernelevolve.cli.options import AsJson, RegistryDir, RunsDir, SettingsFile
from kernelevolve.cli.sessions import concurrency
from kernelevolve.cli.summary import (
    Certification,
    Mark,
    at,
    best_of,
    certification_of,
    evidence,
    failures,
    finished,
    marks,
    nothing_wins,
    triaged,
    verdict_on,
)
from kernelevolve.cli.waste import Waste, ends, money, rows, waste_of
from kernelevolve.errors import StoreError
from kernelevolve.runs import ReportPaths, Runs
from kernelevolve.schema import Failed, Run
from kernelevolve.schema.nowin import NothingWins
from kernelevolve.settings import Settings

if TYPE_CHECKING:
    from kernelevolve.store import RunSummary, SqlStore

app = typer.Typer(help="Searches that were made.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the run.")]


@app.command("list")
def list_runs(folder: RunsDir = None, file: SettingsFile = None, as_json: AsJson = False) -> None:
    """List the runs, newest first."""
    found = _summaries(settings.load(file, runs=folder))
    if as_json:
        output.document(found)
        return
    if not found:
        output.note("no runs yet; start one with: kernelevolve search TARGET")
        return
    output.table(
        ("RUN", "TARGET", "HARDWARE", ">EVALUATED", ">FAILED", ">BEST, AT LEAST", "STATE"),
        [
            (
                s.run,
                s.target,
                s.hardware_key,
                f"{s.evaluated}/{s.evals}",
                str(s.failed),
                "" if s.best is None else formats.times(s.best),
                s.last_event or "",
            )
            for s in found
        ],
    )


@app.command()
def show(name: Name, folder: RunsDir = None, file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Show a run: its best candidate by workload, its failures, and what its steps came to."""
    chosen = settings.load(file, runs=folder)
    with _open(chosen) as store:
        run = store.run(name)
        waste = waste_of(run, store.asks(name))
    if as_json:
        output.document({**run.model_dump(mode="json"), "waste": waste, "nothing_wins": nothing_wins(run)})
        return
    _describe(run)
    tell_waste(waste)


@app.command()
def curve(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names of runs.")],
    *,
    folder: RunsDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the best so far of runs side by side, after the same numbers of evaluations."""
    with _open(settings.load(file, runs=folder)) as store:
        runs = [store.run(name) for name in dict.fromkeys(names)]
    numbers = marks(runs)
    curves = {run.spec.run: at(run, numbers) for run in runs}
    if as_json:
        output.document({name: [_as_json(mark) for mark in found] for name, found in curves.items()})
        return
    lines = [
        (f"{n}", *(_cell(next((m for m in found if m.evaluations == n), None)) for found in curves.values()))
        for n in numbers
    ]
    output.table((">EVALUATIONS", *(f"{r.spec.run} ({r.spec.proposer})" for r in runs)), lines)


@app.command()
def report(
    name: Name,
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the report (default: the run's own).")] = None,
    folder: RunsDir = None,
    registry: RegistryDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a run, as a web page and as Markdown."""
    paths = write_report(settings.load(file, runs=folder, registry=registry), name, out)
    if as_json:
        output.document({"run": name, "html": str(paths.html), "markdown": str(paths.markdown)})
        return
    output.text(str(paths.html))
    output.text(str(paths.markdown))


@app.command("transcript")
def transcript_of(run: Name, folder: RunsDir = None, file: SettingsFile = None) -> None:
    """Print every question that was put to a model or an agent, every answer, and how each step ended (Markdown)."""
    from kernelevolve.cli.transcript import transcript

    with _open(settings.load(file, runs=folder)) as store:
        output.verbatim("\n".join(transcript(store.run(run), store.asks(run))))


@dataclass(frozen=True)
class Finished:
    """A run with what is said of it at its end."""

    report: ReportPaths
    waste: Waste
    nothing_wins: NothingWins | None


def finish(chosen: Settings, name: str) -> Finished:
    """Write the report of a run that has ended. Raises `StoreError`."""
    report = write_report(chosen, name)
    with _open(chosen) as store:
        run = store.run(name)
        return Finished(report, waste_of(run, store.asks(name)), nothing_wins(run))


def tell_evidence(nothing: NothingWins | None) -> None:
    """Print why nothing wins, if that is so."""
    if nothing is None:
        return
    for line in evidence(nothing):
        output.text(line)


def tell_waste(waste: Waste) -> None:
    """Print what the steps came to, where more than the tuner was at work."""
    if waste.total.calls == 0 and set(waste.total.ends) <= {"measured", "triaged", "under_way"}:
        return
    shown = ends(waste)
    names = [f">{end.replace('_', ' ').upper()}" for end in shown]
    output.text()
    output.table(("STEPS OF", ">ALL", *names, ">CALLS", ">TOKENS IN", ">TOKENS OUT", ">COST"), rows(waste))
    if waste.open_steps:
        used = waste.open_usage
        tokens = f"{used.input_tokens + used.output_tokens:,} tokens, {money(used.cost_usd)}"
        output.text(f"and {waste.open_steps} that came to no proposal yet: {tokens}")


def write_report(chosen: Settings, name: str, out: Path | None = None) -> ReportPaths:
    """Write the report of a run into a folder (its own for None). Raises `StoreError`."""
    from kernelevolve.cli.report import write

    with _open(chosen) as store:
        run, asks = store.run(name), store.asks(name)
        certification = _certification(chosen, run, store)
    paths = Runs(chosen.runs).report_paths(name)
    if out is not None:
        paths = ReportPaths(html=out / paths.html.name, markdown=out / paths.markdown.name)
    made = write(run, certification, waste_of(run, asks))
    try:
        paths.html.parent.mkdir(parents=True, exist_ok=True)
        paths.html.write_text(made.html, encoding="utf-8")
        paths.markdown.write_text(made.markdown, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"can't write the report to {paths.html.parent}: {error.strerror}",
            remedy="make room there, or name another folder with --out",
        ) from error
    return paths


def _open(chosen: Settings) -> "SqlStore":
    # Imported here: a command that needs no store starts in half the time.
    from kernelevolve.store import SqlStore

    return SqlStore.open(Runs(chosen.runs).database, read_only=True)


def _cell(mark: Mark | None) -> str:
    if mark is None:
        return ""
    best = "nothing right" if mark.best is None else formats.speedup(mark.best.passed)
    return f"{best}, {mark.answered} answered" if mark.answered else best


def _as_json(mark: Mark) -> dict[str, object]:
    passed = mark.best.passed if mark.best else None
    return {
        "evaluations": mark.evaluations, "answered": mark.answered, "step": mark.best.step if mark.best else None,
        "speedup": passed.speedup if passed else None, "interval": passed.interval if passed else None,
    }  # fmt: skip


def _certification(chosen: Settings, run: Run, store: "SqlStore") -> Certification:
    from kernelevolve.registry.local import LocalRegistry

    entries = LocalRegistry(chosen.registry).entries(target=run.spec.target.name)
    return certification_of(run, store.evaluations(run.spec.run, "certify"), [stored.entry for stored in entries])


def _summaries(chosen: Settings) -> "tuple[RunSummary, ...]":
    if not Runs(chosen.runs).database.is_file():
        return ()
    with _open(chosen) as store:
        return store.summaries()


def _describe(run: Run) -> None:
    spec, steps = run.spec, finished(run)
    failed = sum(isinstance(verdict_on(step), Failed) for step in steps)
    output.text(f"{spec.run}: {spec.target.name} on {spec.hardware.key}, begun {formats.moment(spec.created_at)}")
    output.text(f"{spec.language}, {spec.proposer}, {spec.policy}, seed {spec.seed}, {spec.threads} threads")
    output.text(f"at once: {concurrency(spec)}")
    output.text(f"evaluated {len(steps)} of {spec.evals}, failed {failed}")
    for event in run.events:
        output.text(f"{formats.moment(event.at)} {event.kind} {event.detail}".rstrip())
    best = best_of(run.steps)
    if best is not None:
        state = "confirmed" if best.confirmed else "not confirmed"
        output.text(f"best: {formats.speedup(best.passed)}, {best.candidate.label}, step {best.step}, {state}")
        output.text()
        output.measurements(best.passed.measurements)
    if best is None or best.passed.fitness <= 1:
        tell_evidence(nothing_wins(run))
    if found := triaged(run):
        output.text(f"triaged for {spec.hardware.key} and not measured: {len(found)}")
    groups = failures(run)
    if groups:
        output.text()
        output.table(
            ("FAILED AT", "KIND", ">COUNT", "FOR INSTANCE"),
            [(g.stage, g.kind, str(g.count), g.example.message.splitlines()[0][:100]) for g in groups],
        )
