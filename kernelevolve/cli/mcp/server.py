"""The MCP server itself: its tools, and the two ways in which it is spoken to."""

import functools
import inspect
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import uvicorn
from anyio import to_thread
from mcp.server.transport_security import TransportSecuritySettings

from kernelevolve.cli.mcp.children import Searches
from kernelevolve.cli.mcp.driving import Driving
from kernelevolve.cli.mcp.looking import Looking
from kernelevolve.cli.mcp.options import ServerOptions
from kernelevolve.errors import KernelevolveError, UsageError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from starlette.applications import Starlette
else:
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ModuleNotFoundError:  # before version 2 of the library
        from mcp.server.fastmcp import FastMCP as MCPServer
        from mcp.server.fastmcp.exceptions import ToolError

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost", "[::1]")

INSTRUCTIONS = """\
kernelevolve searches for fast kernels, judges them in a sandbox against the fastest correct baseline, and certifies
winners. You write the kernels: start_search (or resume_search), then in a loop next_brief with wait_seconds,
submit_candidate, read_evaluation with wait_seconds. A brief holds all that its answer needs and says what form the
answer takes. evaluate judges a kernel outside any run, as often as you like, so that you can try one before you
submit it. A run ends with its budget; best and lineage tell what was found."""

P = ParamSpec("P")
R = TypeVar("R")


def make_server(options: ServerOptions, searches: Searches) -> MCPServer:
    """A server with every tool."""
    server = MCPServer("kernelevolve", instructions=INSTRUCTIONS, log_level="WARNING")
    driving, looking = Driving(options, searches), Looking(options, searches)
    for tool in (
        looking.list_targets, driving.start_search, driving.resume_search, driving.stop_search, driving.next_brief,
        driving.submit_candidate, driving.skip_brief, driving.evaluate, looking.read_evaluation, looking.status,
        looking.best, looking.lineage, looking.runs, looking.knowledge_search, looking.knowledge_read,
    ):  # fmt: skip
        server.add_tool(_guarded(tool))
    return server


def serve_stdio(options: ServerOptions) -> None:
    """Serve on standard input and output until the client closes them; searches are then left ready to be resumed."""
    searches = Searches()
    try:
        make_server(options, searches).run("stdio")
    finally:
        searches.close()


def serve_http(options: ServerOptions, listener: socket.socket) -> None:
    """Serve on a socket of `listen` until Ctrl-C; searches are then left ready to be resumed.

    A request that names another host, or comes from a page of another origin, is refused: a web page in a browser of
    this machine could else drive the server under a name that leads to it (DNS rebinding).
    """
    searches = Searches()
    app = _guarded_app(make_server(options, searches))
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        searches.close()


def listen(port: int) -> socket.socket:
    """A socket on this machine's own address; port 0 takes any that is free. Raises `UsageError`."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(f"can't listen on {HOST}:{port}: {error.strerror}", remedy="name another port") from error
    return listener


def _guarded_app(server: MCPServer) -> "Starlette":
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[f"{name}:*" for name in _NAMES],
        allowed_origins=[f"http://{name}:*" for name in _NAMES],
    )
    if "transport_security" in inspect.signature(server.streamable_http_app).parameters:
        return server.streamable_http_app(transport_security=security)
    return _older_app(server, security)


def _older_app(server: Any, security: TransportSecuritySettings) -> "Starlette":
    """Before version 2 of the library the server itself keeps these settings."""
    server.settings.transport_security = security
    app: Starlette = server.streamable_http_app()
    return app


def _guarded(tool: Callable[P, Awaitable[R]] | Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """Our own errors reach the client with their remedy; what only reads runs beside the server's loop."""

    @functools.wraps(tool)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = functools.partial(tool, *args, **kwargs)
            result = bound() if inspect.iscoroutinefunction(tool) else to_thread.run_sync(bound)
            return await cast(Awaitable[R], result)
        except KernelevolveError as error:
            raise ToolError(str(error)) from error

    return call
