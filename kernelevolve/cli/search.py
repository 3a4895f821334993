"""The command `search`: find a kernel."""

from typing import TYPE_CHECKING, Annotated

import typer

from kernelevolve import settings
from kernelevolve.cli import output
from kernelevolve.cli.ending import REPLAYED, Ending, certified, search_document, tell
from kernelevolve.cli.options import (
    NO_WIN,
    AsJson,
    DeviceSeconds,
    Diagnostics,
    DryRun,
    Evals,
    HardwareKey,
    Knowledge,
    Lanes,
    Language,
    Minutes,
    Model,
    ModelsFile,
    Policy,
    PromptsDir,
    Proposer,
    RecordTo,
    RegistryDir,
    ReplayFrom,
    RequireSandbox,
    Resume,
    RunsDir,
    Seed,
    SettingsFile,
    Skills,
    Stall,
    TargetRoofline,
    TargetsDir,
    TargetSpeedup,
    Threads,
    Tokens,
    Triage,
    Tuning,
    Usd,
    Workers,
)  # fmt: skip
from kernelevolve.cli.progress import follow
from kernelevolve.cli.queue import queued
from kernelevolve.cli.runs import finish, tell_evidence, tell_waste
from kernelevolve.cli.sessions import (
    INTERRUPTED,
    Wanted,
    announce,
    rehearse,
    resumable,
    session_of,
    write_recording,
)
from kernelevolve.settings import Settings

if TYPE_CHECKING:
    from kernelevolve.search import SearchResult

__all__ = ["INTERRUPTED", "NO_WIN", "search"]


def search(
    target: Annotated[
        str | None, typer.Argument(help="Name of the target; left out with --resume and --replay.")
    ] = None, *,
    evals: Evals = None, minutes: Minutes = None, seed: Seed = None, workers: Workers = None, threads: Threads = None,
    hardware: HardwareKey = None, language: Language = None, proposer: Proposer = None, policy: Policy = None,
    model: Model = None, models_file: ModelsFile = None, lanes: Lanes = None, usd: Usd = None, tokens: Tokens = None,
    device_seconds: DeviceSeconds = None, target_speedup: TargetSpeedup = None, target_roofline: TargetRoofline = None,
    stall: Stall = None, knowledge: Knowledge = None, diagnostics: Diagnostics = None, skills: Skills = None,
    tuning: Tuning = None,
    registry: RegistryDir = None, runs: RunsDir = None, targets: TargetsDir = None, prompts: PromptsDir = None,
    require_sandbox: RequireSandbox = None, file: SettingsFile = None, triage: Triage = False, resume: Resume = None,
    record: RecordTo = None, replay: ReplayFrom = None, dry_run: DryRun = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Search for a kernel, certify the best one on workloads that the search never saw, and publish it."""
    chosen = settings.load(
        file, evals=evals, minutes=minutes, seed=seed, workers=workers, threads=threads, hardware=hardware,
        language=language, proposer=proposer, policy=policy, model=model or None, models_file=models_file,
        lanes=lanes, usd=usd, tokens=tokens, device_seconds=device_seconds, target_speedup=target_speedup,
        target_roofline=target_roofline, stall=stall, knowledge=knowledge, diagnostics=diagnostics,
        skills=skills, tuning=tuning,
        registry=registry, runs=runs, targets=targets, prompts=prompts, require_sandbox=require_sandbox,
    )  # fmt: skip
    wanted = Wanted(target, resume, replay, triage)
    if dry_run:
        rehearse(chosen, wanted, as_json=as_json)
        return
    session = session_of(chosen, wanted)
    announce(session, wanted)
    with resumable(session, chosen, wanted):
        with follow() as listen:
            result = session.run(listen)
        if record is not None:
            write_recording(chosen, result.run, record)
        if session.spec.executor == "triage":
            raise typer.Exit(0 if queued(chosen, result, as_json=as_json) else NO_WIN)
        ending = certified(session, result, chosen) if replay is None else REPLAYED
    _conclude(chosen, result, ending, as_json=as_json)


def _conclude(chosen: Settings, result: "SearchResult", ending: Ending, *, as_json: bool) -> None:
    """Write the report, tell of it all, and end with the exit code."""
    ended = finish(chosen, result.run)
    if as_json:
        output.document(search_document(result, ending, waste=ended.waste, nothing=ended.nothing_wins))
    else:
        tell(result, ending)
        tell_evidence(ended.nothing_wins)
        tell_waste(ended.waste)
        output.text(f"report: {ended.report.html}")
    if ending.verdict not in ("certified", "replayed"):
        raise typer.Exit(NO_WIN)
