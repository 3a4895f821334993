"""The commands `targets ...`: operations that can be searched for."""

from pathlib import Path
from typing import Annotated

import typer

from kernelevolve import settings, targets
from kernelevolve.catalog import LANGUAGES
from kernelevolve.cli import output
from kernelevolve.cli.options import AsJson, SettingsFile, TargetsDir
from kernelevolve.errors import TargetError
from kernelevolve.resources import targets_dir
from kernelevolve.schema import Input, Output, Target

app = typer.Typer(help="Operations to speed up.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the target.")]


@app.command("list")
def list_targets(folder: TargetsDir = None, file: SettingsFile = None, as_json: AsJson = False) -> None:
    """List the targets."""
    where = _folder(folder, file)
    found = [targets.load(name, where) for name in targets.names(where)]
    if as_json:
        output.document([_digest(target, where) for target in found])
        return
    output.table(
        ("TARGET", ">WORKLOADS", "LANGUAGES", "SUMMARY"),
        [(t.name, str(len(t.workloads)), " ".join(_languages(t, where)), t.summary) for t in found],
    )


@app.command()
def show(name: Name, folder: TargetsDir = None, file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Show a target: its tensors, workloads and baselines."""
    where = _folder(folder, file)
    target = targets.load(name, where)
    seeds = [f"{seed.language}/{seed.name}" for seed in targets.seeds(name, where)]
    if as_json:
        output.document({"target": target, "digest": target.digest, "seeds": seeds})
        return
    output.text(f"{target.name}: {target.summary}")
    output.text(target.source)
    output.text()
    for axis, meaning in target.axes.items():
        output.text(f"  {axis:<12} {meaning}")
    output.text()
    for line in (*map(_input, target.inputs), *map(_output, target.outputs)):
        output.text(f"  {line}")
    output.text()
    output.table(
        ("WORKLOAD", "ROLE", "DEVICE", "AXES", "TYPES", ">MIB MOVED"),
        [
            (
                w.name,
                w.role.replace("_", " "),
                w.device,
                " ".join(f"{axis}={size}" for axis, size in w.axes.items()),
                " ".join(w.dtypes.values()),
                f"{target.compulsory_bytes(w) / 2**20:.2f}",
            )
            for w in target.workloads
        ],
    )
    output.text()
    for baseline in target.baselines:
        output.text(f"  baseline {baseline.name:<12} {baseline.summary} ({', '.join(baseline.devices)})")
    output.text(f"  seeds {', '.join(seeds) or 'none'}")


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Names of targets (default: all).")] = None,
    folder: TargetsDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Look for mistakes in the files and seeds, and in what reference and inputs do when they run."""
    where = _folder(folder, file)
    found = {name: _problems(name, where) for name in names or targets.names(where)}
    broken = any(found.values())
    if as_json:
        output.document({"ok": not broken, "targets": [{"target": n, "problems": p} for n, p in found.items()]})
    else:
        for name, problems in found.items():
            output.text(f"{name}: {'ok' if not problems else f'{len(problems)} problems'}")
            for problem in problems:
                output.text(f"  {problem}")
    if broken:
        raise typer.Exit(TargetError.exit_code)


@app.command()
def new(name: Name, folder: TargetsDir = None, file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Write a small, complete target to start from."""
    # Not `targets_dir`: it may name the folder inside the installed package, which is no place to write.
    root = targets.create(name, settings.load(file, targets=folder).targets or Path("targets"))
    if as_json:
        output.document({"target": name, "path": str(root)})
        return
    output.text(f"{root} is there. Edit it, then: kernelevolve targets check {name}")


def _folder(chosen: Path | None, file: Path | None) -> Path:
    return targets_dir(settings.load(file, targets=chosen).targets)


def _problems(name: str, folder: Path) -> list[str]:
    from kernelevolve.harness.selfcheck import check_target

    try:
        target = targets.load(name, folder)
        seeds = targets.seeds(name, folder)
    except TargetError as error:
        return [str(error)]
    known = LANGUAGES.names()
    problems = [
        f"seed {seed.language}/{seed.name}: {finding.message} ({finding.advice})"
        for seed in seeds
        if seed.language in known
        for finding in LANGUAGES.load(seed.language)().admit(seed.files)
    ]
    return [*problems, *check_target(target)]


def _digest(target: Target, folder: Path) -> dict[str, object]:
    return {
        "target": target.name,
        "summary": target.summary,
        "digest": target.digest,
        "workloads": len(target.workloads),
        "languages": _languages(target, folder),
    }


def _languages(target: Target, folder: Path) -> list[str]:
    return sorted({seed.language for seed in targets.seeds(target.name, folder)})


def _input(tensor: Input) -> str:
    if tensor.shape is None:
        return f"in  {tensor.name}: integer {tensor.axis}"
    return f"in  {tensor.name}: {_shape(tensor)}{', constant' if tensor.constant else ''}"


def _output(tensor: Output) -> str:
    return f"out {tensor.name}: {_shape(tensor)}, judged by the {tensor.rule.kind} rule"


def _shape(tensor: Input | Output) -> str:
    return f"{tensor.dtype} [{', '.join(map(str, tensor.shape or ()))}]"
