"""The command `kernelevolve`: wires the command groups together."""

import sys
from typing import Annotated

import typer

from kernelevolve import __version__
from kernelevolve.cli import (
    agent,
    compare,
    doctor,
    evaluate,
    hardware,
    knowledge,
    output,
    redteam,
    registry,
    runs,
    search,
    targets,
    triage,
)
from kernelevolve.cli.mcp.command import mcp
from kernelevolve.cli.options import EXIT_CODES
from kernelevolve.errors import KernelevolveError

app = typer.Typer(
    name="kernelevolve",
    help="Finds fast kernels by search, certifies them, and serves the winners.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("search", epilog=EXIT_CODES)(search.search)
app.command("eval", epilog=EXIT_CODES)(evaluate.evaluate)
app.command("triage", epilog=EXIT_CODES)(triage.triage)
app.command("compare", epilog=EXIT_CODES)(compare.compare)
app.add_typer(targets.app, name="targets")
app.add_typer(hardware.app, name="hardware")
app.add_typer(runs.app, name="runs")
app.add_typer(registry.app, name="registry")
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(agent.app, name="agent")
app.command("mcp")(mcp)
app.command("doctor")(doctor.doctor)
app.command("redteam", epilog=EXIT_CODES)(redteam.redteam)


def _print_version(wanted: bool) -> None:
    if wanted:
        output.text(__version__)
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is being done.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    output.set_up_logging(verbose)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line (`sys.argv` for None) and return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=given, prog_name="kernelevolve")
    except KernelevolveError as error:
        output.failure(error, as_json="--json" in given)
        return error.exit_code
    except KeyboardInterrupt:
        return search.INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
