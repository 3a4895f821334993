"""The command `mcp`: serve a coding agent that drives searches."""

from importlib.util import find_spec
from typing import Annotated

import typer

from kernelevolve.cli import output
from kernelevolve.cli.mcp.options import ServerOptions
from kernelevolve.cli.options import (
    HardwareKey,
    Language,
    PromptsDir,
    RegistryDir,
    RequireSandbox,
    RunsDir,
    SettingsFile,
    TargetsDir,
    Threads,
    Workers,
)
from kernelevolve.errors import ToolchainError


def mcp(
    *,
    http: Annotated[
        int | None,
        typer.Option(
            "--http",
            metavar="PORT",
            min=0,
            max=65535,
            help="Serve on this port of this machine alone (0: any that is free), not on standard input and output.",
        ),
    ] = None,
    hardware: HardwareKey = None,
    language: Language = None,
    threads: Threads = None,
    workers: Workers = None,
    registry: RegistryDir = None,
    runs: RunsDir = None,
    targets: TargetsDir = None,
    prompts: PromptsDir = None,
    require_sandbox: RequireSandbox = None,
    file: SettingsFile = None,
) -> None:
    """Serve the Model Context Protocol: a coding agent starts searches, answers their briefs and reads what came of it.

    The options are what its searches begin with. Those that are under way when the server ends can be resumed.
    """
    options = ServerOptions.load(
        file, hardware=hardware, language=language, threads=threads, workers=workers, registry=registry, runs=runs,
        targets=targets, prompts=prompts, require_sandbox=require_sandbox,
    )  # fmt: skip
    if find_spec("mcp") is None:
        raise ToolchainError("the MCP server needs the package mcp", remedy="pip install 'kernelevolve[mcp]'")
    from kernelevolve.cli.mcp import server

    if http is None:
        server.serve_stdio(options)
        return
    with server.listen(http) as listener:
        output.note(f"serving MCP on http://{server.HOST}:{listener.getsockname()[1]}/mcp")
        server.serve_http(options, listener)
