"""The commands `search` and `eval`: find a kernel, or judge one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kernelevolve import settings
from kernelevolve.cli import formats, output
from kernelevolve.cli.options import (
    AsJson,
    Evals,
    HardwareKey,
    Language,
    Minutes,
    Policy,
    Proposer,
    RegistryDir,
    RequireSandbox,
    Resume,
    RunsDir,
    Seed,
    SettingsFile,
    TargetsDir,
    Threads,
    Triage,
    Workers,
)
from kernelevolve.cli.progress import follow
from kernelevolve.cli.queue import drain, queued
from kernelevolve.cli.runs import write_report
from kernelevolve.cli.summary import most_frequent_baseline
from kernelevolve.errors import UsageError
from kernelevolve.schema import Candidate, Entry, Evaluation, Failed, Parent, Passed, Refused, Run
from kernelevolve.settings import Settings

if TYPE_CHECKING:
    from kernelevolve.registry.local import LocalRegistry
    from kernelevolve.search import SearchResult, Session

CANDIDATE_FAILED, NO_WIN, INTERRUPTED = 3, 4, 130

Verdict = Literal["certified", "refused", "no_win"]


def search(
    target: Annotated[str | None, typer.Argument(help="Name of the target; left out with --resume.")] = None,
    *,
    evals: Evals = None,
    minutes: Minutes = None,
    seed: Seed = None,
    workers: Workers = None,
    threads: Threads = None,
    hardware: HardwareKey = None,
    language: Language = None,
    proposer: Proposer = None,
    policy: Policy = None,
    registry: RegistryDir = None,
    runs: RunsDir = None,
    targets: TargetsDir = None,
    require_sandbox: RequireSandbox = None,
    file: SettingsFile = None,
    triage: Triage = False,
    resume: Resume = None,
    as_json: AsJson = False,
) -> None:
    """Search for a kernel, certify the best one on workloads that the search never saw, and publish it."""
    if (target is None) == (resume is None):
        raise UsageError(
            "a search needs either a target or --resume RUN", remedy="kernelevolve targets list shows them"
        )
    chosen = settings.load(
        file, evals=evals, minutes=minutes, seed=seed, workers=workers, threads=threads, hardware=hardware,
        language=language, proposer=proposer, policy=policy, registry=registry, runs=runs, targets=targets,
        require_sandbox=require_sandbox,
    )  # fmt: skip
    session = _session(chosen, target, resume, triage)
    output.note(f"run: {session.spec.run}")
    with _resumable(session, chosen):
        with follow() as listen:
            result = session.run(listen)
        if session.spec.executor == "triage":
            raise typer.Exit(0 if queued(chosen, result, as_json=as_json) else NO_WIN)
        verdict, entry, message = _certify(session, result, chosen)
    report = write_report(chosen, result.run)
    if as_json:
        output.document(search_document(result, verdict, entry))
    else:
        _tell(result, verdict, message)
        output.text(f"report: {report.html}")
    if verdict != "certified":
        raise typer.Exit(NO_WIN)


def evaluate(
    target: Annotated[str | None, typer.Argument(help="Name of the target; left out with --queue.")] = None,
    files: Annotated[list[Path] | None, typer.Argument(help="Source files of the candidate.")] = None,
    *,
    queue: Annotated[
        Path | None, typer.Option("--queue", help="Judge the candidates of a queue that search --triage left.")
    ] = None,
    top: Annotated[int | None, typer.Option("--top", min=1, help="Of a queue: only the first so many.")] = None,
    minutes: Minutes = None,
    workload: Annotated[list[str] | None, typer.Option(help="Only this workload; may be given again.")] = None,
    threads: Threads = None,
    hardware: HardwareKey = None,
    language: Language = None,
    targets: TargetsDir = None,
    require_sandbox: RequireSandbox = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge one candidate, or those of a queue: build, compare results, time against the fastest baseline."""
    one, many = (target, files, workload, hardware, language), (top, minutes)
    if queue is None and not (target and files):
        raise UsageError("there is no candidate", remedy="kernelevolve eval TARGET FILE, or eval --queue QUEUE")
    if any(one if queue else many):
        raise UsageError(
            "a queue names its target, hardware and candidates itself" if queue else "--top and --minutes need a queue",
            remedy="give either TARGET and FILE, or --queue with --top, --minutes, --threads and --targets",
        )
    if queue is not None:
        chosen = settings.load(
            file, threads=threads, targets=targets, minutes=minutes, require_sandbox=require_sandbox
        )  # fmt: skip
        if not drain(chosen, queue, top=top, as_json=as_json):
            raise typer.Exit(CANDIDATE_FAILED)
        return
    assert target and files
    from kernelevolve.evaluate import evaluate_file

    chosen = settings.load(
        file, threads=threads, hardware=hardware, language=language, targets=targets, require_sandbox=require_sandbox
    )  # fmt: skip
    evaluation = evaluate_file(chosen, target, files, tuple(workload or ()))
    if as_json:
        output.document(evaluation_document(evaluation))
    else:
        _tell_evaluation(evaluation)
    if not isinstance(evaluation, Passed):
        raise typer.Exit(CANDIDATE_FAILED)


def search_document(result: "SearchResult", verdict: Verdict, entry: Path | None) -> dict[str, object]:
    """What `search --json` prints."""
    best = _best(result.best)
    if best is None or result.best is None:
        found = None
    else:
        low, high = best.interval
        found = {"candidate": result.best.candidate.digest, "speedup": best.speedup, "low": low, "high": high}
    return {
        "run": result.run,
        "target": result.target,
        "hardware": result.hardware_key,
        "evaluated": result.evaluated,
        "failed": result.failed,
        "best": found,
        "baseline": most_frequent_baseline(result.baseline.values()),
        "verdict": verdict,
        "entry": None if entry is None else str(entry),
        "stopped": result.stopped,
        "seconds": result.seconds,
    }


def evaluation_document(evaluation: Evaluation) -> dict[str, object]:
    """What `eval --json` prints."""
    passed = evaluation if isinstance(evaluation, Passed) else None
    low, high = passed.interval if passed else (None, None)
    return {
        "outcome": evaluation.outcome,
        "stage": evaluation.stage if isinstance(evaluation, Failed) else None,
        "candidate": evaluation.candidate,
        "speedup": passed.speedup if passed else None,
        "low": low,
        "high": high,
        "diagnostics": evaluation.diagnostics,
        "measurements": passed.measurements if passed else (),
        "costs": evaluation.costs,
    }


def _session(chosen: Settings, target: str | None, resume: str | None, triage: bool) -> "Session":
    from kernelevolve.search import TRIAGE, Session

    if resume is None:
        return Session.start(chosen, target or "", TRIAGE if triage else "local")
    session = Session.resume(chosen, resume)
    if triage and session.spec.executor != TRIAGE:
        raise UsageError(f"run {resume} is one with its device", remedy="go on with it without --triage")
    return session


@contextmanager
def _resumable(session: "Session", chosen: Settings) -> Iterator[None]:
    """Turn Ctrl-C into a word on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        where = "" if chosen.runs == Path("runs") else f" --runs {chosen.runs}"
        output.note(f"interrupted; go on with: kernelevolve search --resume {session.spec.run}{where}")
        raise typer.Exit(INTERRUPTED) from None


def _certify(session: "Session", result: "SearchResult", chosen: Settings) -> tuple[Verdict, Path | None, str]:
    best = _best(result.best)
    if best is None or result.best is None or best.fitness <= 1:
        return "no_win", None, "nothing beats the baselines here"
    from kernelevolve.certify import certify
    from kernelevolve.registry.local import LocalRegistry
    from kernelevolve.runs import Runs
    from kernelevolve.store import SqlStore

    registry, candidate = LocalRegistry(chosen.registry), result.best.candidate
    with SqlStore.open(Runs(chosen.runs).database) as store:
        run = store.run(result.run)
        outcome = _earlier(candidate, run, store.evaluations(result.run, "certify"), registry)
    if outcome is None:
        output.note("certifying on held-out workloads")
        outcome = certify(candidate, run, chosen)
    if not isinstance(outcome, Entry):
        session.conclude(outcome, outcome.message)
        return "refused", None, outcome.message
    path = registry.publish(outcome)
    session.conclude(outcome, str(path))
    return "certified", path, f"published as {path}"


def _earlier(
    candidate: Candidate, run: Run, evaluations: Sequence[Evaluation], registry: "LocalRegistry"
) -> Entry | Refused | None:
    """What an earlier sitting of the run came to with this candidate: a run is certified once."""
    from kernelevolve.certify import outcome

    for stored in registry.entries(run.spec.target.name, run.spec.hardware.key):
        if stored.entry.provenance.run == run.spec.run and stored.entry.candidate == candidate:
            return stored.entry
    said = [outcome(candidate, run, e) for e in evaluations if e.candidate == candidate.digest]
    return next((o for o in said if isinstance(o, Refused)), None)


def _best(parent: Parent | None) -> Passed | None:
    return parent.evaluation if parent and isinstance(parent.evaluation, Passed) else None


def _tell(result: "SearchResult", verdict: Verdict, message: str) -> None:
    spent = formats.duration(result.seconds)
    counts = f"{result.evaluated} evaluated, {result.failed} failed, stopped by {result.stopped}, {spent}"
    output.text(f"{result.target} on {result.hardware_key}: {counts}")
    best = _best(result.best)
    if best is not None and result.best is not None:
        output.text(f"best: {formats.speedup(best)} over the fastest baseline, {result.best.candidate.label}")
        output.measurements(best.measurements)
    output.text(f"{verdict.replace('_', ' ')}: {message}")
    output.text(f"run: {result.run}")


def _tell_evaluation(evaluation: Evaluation) -> None:
    if isinstance(evaluation, Passed):
        output.text(f"passed: {formats.speedup(evaluation)} over the fastest baseline")
        output.measurements(evaluation.measurements)
    elif isinstance(evaluation, Failed):
        output.text(f"failed at {evaluation.stage}")
    for finding in evaluation.diagnostics:
        output.text(f"{finding.kind}: {finding.message}")
        output.text(f"  {finding.advice}")
