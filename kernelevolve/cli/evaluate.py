"""The command `eval`: judge one candidate, or those of a queue."""

from pathlib import Path
from typing import Annotated

import typer

from kernelevolve import settings
from kernelevolve.cli import formats, output
from kernelevolve.cli.options import (
    CANDIDATE_FAILED,
    AsJson,
    HardwareKey,
    Language,
    Minutes,
    RegistryDir,
    RequireSandbox,
    SettingsFile,
    TargetsDir,
    Threads,
    Workers,
)
from kernelevolve.cli.queue import drain
from kernelevolve.errors import UsageError
from kernelevolve.schema import Evaluation, Failed, Passed
from kernelevolve.settings import Settings


def evaluate(
    target: Annotated[str | None, typer.Argument(help="Name of the target; left out with --queue.")] = None,
    files: Annotated[list[Path] | None, typer.Argument(help="Source files of the candidate.")] = None,
    *,
    queue: Annotated[
        list[Path] | None,
        typer.Option("--queue", help="Judge the candidates of a queue that search --triage left; may be given again."),
    ] = None,
    top: Annotated[int | None, typer.Option("--top", min=1, help="Of each queue: only the first so many.")] = None,
    certify: Annotated[
        bool, typer.Option("--certify", help="Of a queue: certify the fastest candidate, and publish it.")
    ] = False,
    registry: RegistryDir = None,
    minutes: Minutes = None,
    workers: Workers = None,
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
    one, many = (target, files, workload, hardware, language), (top, minutes, workers, certify or None, registry)
    if not queue and not (target and files):
        raise UsageError("there is no candidate", remedy="kernelevolve eval TARGET FILE, or eval --queue QUEUE")
    if any(one if queue else many):
        raise UsageError(
            "a queue names its target, hardware and candidates itself"
            if queue
            else "--top, --minutes, --workers, --certify and --registry need a queue",
            remedy="give either TARGET and FILE, or --queue and what it may be given",
        )
    chosen = settings.load(
        file, threads=threads, hardware=hardware, language=language, targets=targets, minutes=minutes, workers=workers,
        registry=registry, require_sandbox=require_sandbox,
    )  # fmt: skip
    if queue:
        code = drain(chosen, queue, top=top, certify=certify, as_json=as_json)
    else:
        assert target and files
        code = _judge(chosen, target, files, tuple(workload or ()), as_json=as_json)
    if code:
        raise typer.Exit(code)


def _judge(chosen: Settings, target: str, files: list[Path], workloads: tuple[str, ...], *, as_json: bool) -> int:
    """Judge one candidate from files, and tell of it; the exit code."""
    from kernelevolve.evaluate import evaluate_file

    evaluation = evaluate_file(chosen, target, files, workloads)
    if as_json:
        output.document(evaluation_document(evaluation))
    else:
        _tell_evaluation(evaluation)
    return 0 if isinstance(evaluation, Passed) else CANDIDATE_FAILED


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


def _tell_evaluation(evaluation: Evaluation) -> None:
    if isinstance(evaluation, Passed):
        output.text(f"passed: {formats.speedup(evaluation)} over the fastest baseline")
        output.measurements(evaluation.measurements)
    elif isinstance(evaluation, Failed):
        output.text(f"failed at {evaluation.stage}")
    for finding in evaluation.diagnostics:
        output.text(f"{finding.kind}: {finding.message}")
        output.text(f"  {finding.advice}")
