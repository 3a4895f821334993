"""A fake model service: a real HTTP server that speaks the three protocols and says what a test wants to hear.

::

    with ModelServer([Fails(429, retry_after=0.1), Says("fine")]) as server:
        info = ModelInfo(name="m", protocol="openai-chat", base_url=server.base_url("openai-chat"))
        Service([info]).complete(...)
    server.asked[0].prompt

It says in every answer that it is a fake (`server: kernelevolve-fake-model-server`), and understands nothing.
"""

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self

from kernelevolve.testing.model_wire import PROTOCOLS, Json, ModelProtocol, Says

__all__ = [
    "Asked", "Behaviour", "Breaks", "Cuts", "Fails", "Garbles", "ModelServer", "Says", "Stalls", "Stops", "unreliable",
]  # fmt: skip


@dataclass(frozen=True)
class Fails:
    """An error in place of a reply."""

    status: int
    message: str = "this fake service fails because it was told to"
    retry_after: float | str | None = None
    code: str = ""
    param: str = ""


@dataclass(frozen=True)
class Stalls:
    """Falls silent: after the text when it streams, at once when it doesn't. `pings` keep a stream alive."""

    text: str = ""
    pings: bool = False


@dataclass(frozen=True)
class Cuts:
    """Breaks the connection in the middle of a reply."""

    text: str = "half a"


@dataclass(frozen=True)
class Stops:
    """Ends a stream properly, but before the reply is finished."""

    text: str = "half a"


@dataclass(frozen=True)
class Breaks:
    """Reports an error in the middle of a stream; answers with it in place of a reply when it doesn't stream."""

    message: str = "overloaded"
    code: str = "overloaded_error"


@dataclass(frozen=True)
class Garbles:
    """Sends JSON that isn't any."""


Behaviour = Says | Fails | Stalls | Cuts | Stops | Breaks | Garbles


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    number: int
    """from 0, over all protocols"""
    protocol: str
    model: str
    system: str
    prompt: str
    body: Json
    headers: Mapping[str, str]
    """names in lower case"""

    @property
    def stream(self) -> bool:
        """Whether a stream was asked for."""
        return bool(self.body.get("stream"))


Script = Sequence[Behaviour | str] | Callable[[Asked], Behaviour | str]
"""What is said, in order, the last one again and again; or what to say to a request. Text is a plain reply."""


UNRELIABLE: tuple[Behaviour, ...] = (
    Fails(429, "slow down", retry_after=0.05),
    Fails(500),
    Stalls("half a"),
    Cuts(),
    Garbles(),
    Says(""),
    Says("I can't help with that.", stop="refusal"),
    Says("```\nhalf a kernel", stop="length"),
    Says("Certainly! Here is how one could go about a faster kernel."),
)
"""What a bad day of a service looks like: faults that pass, refusals, truncation, prose."""


def unreliable(
    answer: Callable[[Asked], Behaviour | str],
    *,
    share: float = 1 / 3,
    seed: int = 0,
    faults: Sequence[Behaviour] = UNRELIABLE,
) -> Callable[[Asked], Behaviour | str]:
    """A script that answers, but for a share of the requests: those get one of the faults.

    Which ones follows from the seed and the request's number.
    """

    def script(asked: Asked) -> Behaviour | str:
        draw = random.Random(f"{seed} {asked.number}")
        return draw.choice(faults) if draw.random() < share else answer(asked)

    return script


class ModelServer:
    """Listens on a free port of the loopback interface between `with` and its end."""

    def __init__(
        self,
        script: Script,
        *,
        key: str | None = None,
        models: Iterable[str] | None = None,
        rejects: Iterable[str] = (),
        streams: Literal["yes", "refuses", "ignores"] = "yes",
        latency_s: float = 0.0,
    ) -> None:
        """`key`: the only one that is accepted; `models`: the only ones that are known; `rejects`: parameters that
        are refused; `streams`: whether a wish to stream is granted, refused, or ignored; `latency_s`: before an
        answer."""
        self.asked: list[Asked] = []
        """every request, also those that were refused"""
        self._script = script
        self._key = key
        self._models = None if models is None else tuple(models)
        self._rejects = tuple(rejects)
        self._streams = streams
        self._latency_s = latency_s
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner, self._http.connections = self, []
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End every stall, stop listening, and hang up on everybody."""
        self.closing.set()
        self._http.shutdown()
        self._http.hang_up()
        self._http.server_close()
        self._thread.join()

    def base_url(self, protocol: str) -> str:
        """Where clients of a protocol find it."""
        spoken = next(p for p in PROTOCOLS if p.name == protocol)
        return f"http://127.0.0.1:{self._http.server_address[1]}{spoken.base}"

    def note(self, protocol: ModelProtocol, body: Json, headers: Mapping[str, str]) -> Asked:
        """Keep a request."""
        words = protocol.words(body)
        with self._lock:
            asked = Asked(len(self.asked), protocol.name, words.model, words.system, words.prompt, body, headers)
            self.asked.append(asked)
        return asked

    def behaviour(self, asked: Asked) -> Behaviour:
        """What to do about a request."""
        time.sleep(self._latency_s)
        if (refused := self._refused(asked)) is not None:
            return refused
        script = self._script
        said = script(asked) if callable(script) else script[min(self._granted(asked), len(script) - 1)]
        return Says(said) if isinstance(said, str) else said

    def may_stream(self, asked: Asked) -> bool:
        """Whether this request gets a stream."""
        return asked.stream and self._streams == "yes"

    def listed(self, headers: Mapping[str, str]) -> tuple[str, ...] | Fails:
        """The names of the models, as far as they are told apart."""
        return self._without_key(headers) or self._models or ()

    def _without_key(self, headers: Mapping[str, str]) -> Fails | None:
        said = headers.get("authorization", "") or headers.get("x-api-key", "")
        return None if self._key in (None, said.removeprefix("Bearer ")) else Fails(401, "invalid key")

    def _refused(self, asked: Asked) -> Fails | None:
        if (failed := self._without_key(asked.headers)) is not None:
            return failed
        if self._models is not None and asked.model not in self._models:
            return Fails(404, f"the model {asked.model} does not exist")
        for name in self._rejects:
            if name in asked.body:
                return Fails(400, f"Unsupported parameter: '{name}' is not supported with this model.", param=name)
        if asked.stream and self._streams == "refuses":
            return Fails(400, "stream is not supported by this server", param="stream")
        return None

    def _granted(self, asked: Asked) -> int:
        """How many requests before this one got as far as the script."""
        with self._lock:
            return sum(self._refused(earlier) is None for earlier in self.asked[: asked.number])


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    owner: ModelServer
    connections: list[socket.socket]

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept a connection, and remember it: clients keep theirs open between requests."""
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def hang_up(self) -> None:
        """End every connection."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "kernelevolve-fake-model-server"
    sys_version = ""
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Keep quiet."""

    def do_GET(self) -> None:
        """Show the list of models, to whoever has the key; that is no question, and isn't noted."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        found = self.server.owner.listed(headers)
        if self.path.partition("?")[0] != "/v1/models":
            found = Fails(404, f"this fake service has nothing at {self.path}")
        if isinstance(found, Fails):
            spoken = "anthropic" if "anthropic-version" in headers else "openai-chat"
            self._fail(next(p for p in PROTOCOLS if p.name == spoken), found)
            return
        data = [{"id": name, "object": "model", "type": "model", "created": 1, "owned_by": "fake"} for name in found]
        self._send(200, {"object": "list", "data": data, "has_more": False})

    def do_POST(self) -> None:
        """Answer as the script says."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = self.path.partition("?")[0]
        protocol = next((p for p in PROTOCOLS if p.path == path), None)
        if protocol is None:
            self._send(404, {"error": {"message": f"this fake service has nothing at {path}"}})
            return
        owner = self.server.owner
        asked = owner.note(protocol, body, {name.lower(): value for name, value in self.headers.items()})
        behaviour = owner.behaviour(asked)
        if isinstance(behaviour, Fails):
            self._fail(protocol, behaviour)
        elif owner.may_stream(asked):
            self._stream(protocol, behaviour, asked)
        else:
            self._answer(protocol, behaviour, asked)

    def _fail(self, protocol: ModelProtocol, fails: Fails) -> None:
        headers = {} if fails.retry_after is None else {"retry-after": str(fails.retry_after)}
        self._send(fails.status, protocol.error(fails.status, fails.message, fails.code, fails.param), headers)

    def _answer(self, protocol: ModelProtocol, behaviour: Behaviour, asked: Asked) -> None:
        if isinstance(behaviour, Says):
            self._send(200, protocol.whole(behaviour, protocol.words(asked.body)))
        elif isinstance(behaviour, Breaks):
            self._send(503, protocol.error(503, behaviour.message, behaviour.code, ""))
        elif isinstance(behaviour, Stalls):
            self.server.owner.closing.wait()
            self.close_connection = True
        elif isinstance(behaviour, Garbles):
            self._send_text(200, b'{"id": "fake", "choices": [{')
        else:
            self._send_text(200, b'{"id": "fa', length=1000)
            self.close_connection = True

    def _stream(self, protocol: ModelProtocol, behaviour: Behaviour, asked: Asked) -> None:
        text = behaviour.text if isinstance(behaviour, Says | Stalls | Cuts | Stops) else "half a"
        says = behaviour if isinstance(behaviour, Says) else Says(text)
        parts = protocol.parts(says, protocol.words(asked.body))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in (*parts.opening, *parts.pieces):
            self._chunk(event.encoded())
        if isinstance(behaviour, Stalls):
            self._stall(pings=behaviour.pings)
        if isinstance(behaviour, Cuts | Stalls):
            self.close_connection = True
            return
        if isinstance(behaviour, Says):
            for event in parts.closing:
                self._chunk(event.encoded())
        elif isinstance(behaviour, Breaks):
            self._chunk(protocol.late_error(behaviour.message, behaviour.code).encoded())
        elif isinstance(behaviour, Garbles):
            name = f"event: {parts.pieces[0].name}\n" if parts.pieces[0].name else ""
            self._chunk(f'{name}data: {{"id": "fake", "choices": [{{\n\n'.encode())
        self._chunk(b"")

    def _stall(self, *, pings: bool) -> None:
        while not self.server.owner.closing.wait(0.05 if pings else None):
            self._chunk(b": ping\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _send(self, status: int, content: Json, headers: Mapping[str, str] | None = None) -> None:
        self._send_text(status, json.dumps(content).encode(), headers)

    def _send_text(
        self, status: int, content: bytes, headers: Mapping[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(length or len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
