"""Clients of the MCP server: in this process, and of a server in a process of its own."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from mcp import Client
from searching import argv, environment

from kernelevolve.cli.mcp.children import Searches
from kernelevolve.cli.mcp.options import ServerOptions
from kernelevolve.cli.mcp.server import make_server
from kernelevolve.settings import Settings


def ask(settings: Settings, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """What a server in this process answers to calls of its tools, one after the other."""

    async def talk() -> list[Any]:
        server = make_server(ServerOptions(settings, environment(settings)), Searches())
        async with Client(server) as client:
            return [await said(client, tool, **arguments) for tool, arguments in calls]

    return anyio.run(talk)


async def said(client: Client, tool: str, **arguments: Any) -> Any:
    """The structured answer to a call, or the text of the error."""
    result = await client.call_tool(tool, arguments)
    return result.content[0].text if result.is_error else result.structured_content


@dataclass(frozen=True)
class HttpServer:
    """A server in a process of its own."""

    process: "subprocess.Popen[str]"
    address: str


@contextmanager
def http_server(settings: Settings) -> Iterator[HttpServer]:
    """A server on a free port of this machine."""
    with subprocess.Popen(
        argv("mcp", "--http", "0"), stderr=subprocess.PIPE, text=True, env=environment(settings)
    ) as process:
        try:
            line = process.stderr.readline()
            assert line.startswith("serving MCP on http://127.0.0.1:"), line
            yield HttpServer(process, line.rsplit(" ", 1)[1].strip())
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
