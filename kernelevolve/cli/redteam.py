"""The command `redteam`: does the judge catch what cheats, and let pass what doesn't?"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from kernelevolve import settings
from kernelevolve.cli import formats, output
from kernelevolve.cli.options import CANDIDATE_FAILED, AsJson, SettingsFile, TargetsDir
from kernelevolve.resources import exploits_dir
from kernelevolve.schema import ExploitOutcome, RedTeamReport


def redteam(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder of candidates (default: the corpus that ships).")
    ] = None,
    only: Annotated[str, typer.Option("--only", metavar="PATTERN", help="Names of cases, as a shell matches.")] = "*",
    targets: TargetsDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge candidates that cheat or break out, and clean ones: exit code 0 when all came out as expected, else 3."""
    from kernelevolve import redteam as team

    chosen = settings.load(file, targets=targets)
    cases = team.load(exploits_dir(folder), chosen, only)
    with output.console().status("", spinner="line") as status:
        found = team.run(cases, chosen, _listener(len(cases), status.update))
    if as_json:
        output.document({**found.model_dump(mode="json"), "misses": [m.name for m in found.misses]})
    else:
        _tell(found)
    if found.misses:
        raise typer.Exit(CANDIDATE_FAILED)


def _listener(total: int, update: Callable[[str], None]) -> Callable[[int, ExploitOutcome], None]:
    terminal = output.console().is_terminal

    def heard(number: int, outcome: ExploitOutcome) -> None:
        if terminal:
            update(f"{number} of {total}: {outcome.name}")
        if not outcome.as_expected:
            output.note(f"{outcome.name}: {_found(outcome)}")

    return heard


def _tell(found: RedTeamReport) -> None:
    if found.misses:
        output.table(
            ("CASE", "EXPECTED", "FOUND", "DEFENCE"),
            [(o.name, o.expected, _found(o), o.defence) for o in found.misses],
        )
        output.text()
    output.text(f"recall: {_share(found.recall)} ({found.caught} of {found.exploits} exploits caught)")
    output.text(f"false_alarms: {_share(found.false_alarms)} ({found.flagged} of {found.clean} clean kernels flagged)")
    if found.mistaken:
        output.text(f"mistaken: {found.mistaken} caught, but not as their file says")


def _found(outcome: ExploitOutcome) -> str:
    if outcome.stage is None:
        return f"passed, {formats.times(outcome.speedup or 0.0)}"
    return f"failed at {outcome.stage}: {outcome.kind}: {outcome.message}"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
