"""The commands `registry ...`: certified kernels."""

from typing import Annotated

import typer

from kernelevolve import settings
from kernelevolve.cli import formats, output
from kernelevolve.cli.options import AsJson, RegistryDir, SettingsFile
from kernelevolve.errors import RegistryError
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.schema import Box, Entry

app = typer.Typer(help="Certified kernels.", no_args_is_help=True)


@app.command("list")
def list_entries(registry: RegistryDir = None, file: SettingsFile = None, as_json: AsJson = False) -> None:
    """List the entries."""
    chosen = settings.load(file, registry=registry).registry
    found = LocalRegistry(chosen).entries()
    if as_json:
        output.document([_line(s.entry) | {"path": str(s.path)} for s in found])
        return
    if not found:
        output.note(f"no entries yet in {chosen}; a search publishes what it certifies")
        return
    output.table(
        ("DIGEST", "TARGET", "HARDWARE", ">WINS", ">LOSSES", "SPEED-UP", "CERTIFIED"),
        [
            (
                s.entry.digest[:12],
                s.entry.target,
                s.entry.hardware.key,
                str(sum(m.verdict == "faster" for m in s.entry.evidence)),
                str(sum(m.verdict != "faster" for m in s.entry.evidence)),
                _range(s.entry),
                formats.moment(s.entry.provenance.created_at),
            )
            for s in found
        ],
    )


@app.command()
def show(
    digest: Annotated[str, typer.Argument(help="Digest of the entry, or the beginning of it.")],
    registry: RegistryDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show an entry: where it is served, and the evidence."""
    found = LocalRegistry(settings.load(file, registry=registry).registry).find(digest)
    entry = found.entry
    if as_json:
        output.document({"path": str(found.path), "digest": entry.digest, "entry": entry})
        return
    output.text(f"{entry.target} on {entry.hardware.key}: {entry.digest}")
    output.text(f"{found.path}")
    made = entry.provenance
    output.text(f"certified {formats.moment(made.created_at)} by kernelevolve {made.kernelevolve}")
    output.text(f"run {made.run or 'not recorded'}")
    for box in entry.domain:
        output.text(f"serves {_box(box)}")
    output.text()
    output.measurements(entry.evidence)


@app.command()
def verify(registry: RegistryDir = None, file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Check every entry against its digests; exit code 1 where one is damaged."""
    findings = LocalRegistry(settings.load(file, registry=registry).registry).verify()
    damaged = [finding for finding in findings if not finding.ok]
    if as_json:
        listed = [{"path": str(f.path), "ok": f.ok, "problem": f.problem} for f in findings]
        output.document({"ok": not damaged, "entries": listed})
    else:
        for finding in damaged:
            output.text(f"{finding.path}: {finding.problem}")
        output.text(f"{len(findings)} entries, {len(damaged)} damaged")
    if damaged:
        raise typer.Exit(RegistryError.exit_code)


def _line(entry: Entry) -> dict[str, object]:
    return {
        "digest": entry.digest,
        "target": entry.target,
        "hardware": entry.hardware.key,
        "candidate": entry.candidate.digest,
        "evidence": entry.evidence,
        "created_at": entry.provenance.created_at,
    }


def _range(entry: Entry) -> str:
    found = [m.speedup for m in entry.evidence if m.verdict == "faster"]
    return f"{formats.times(min(found))} to {formats.times(max(found))}" if found else ""


def _box(box: Box) -> str:
    ends = (f"{axis} {low}" if low == high else f"{axis} {low} to {high}" for axis, (low, high) in box.axes.items())
    return f"{', '.join(box.dtypes.values())}: {', '.join(ends)}"
