"""The command `doctor`: what is here, what is missing, and what that costs."""

import typer
from rich.text import Text

from kernelevolve import settings
from kernelevolve.cli import checkup, output
from kernelevolve.cli.options import AsJson, SettingsFile

_SIGNS = {"ok": ("ok", "green"), "note": ("--", "yellow"), "broken": ("!!", "bold red")}


def doctor(file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Say what is here, what is missing and what that costs; exit code 1 without the essential."""
    findings = checkup.examine(settings.load(file))
    healthy = all(finding.state != "broken" for finding in findings)
    if as_json:
        output.document({"healthy": healthy, "findings": findings})
    else:
        for finding in findings:
            sign, style = _SIGNS[finding.state]
            output.show(Text.assemble((f"{sign} ", style), (f"{finding.name:<20}", "bold"), finding.found))
            if finding.cost:
                output.text(f"   {'':<20}{finding.cost}")
    if not healthy:
        raise typer.Exit(1)
