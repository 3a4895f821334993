"""The fork server itself: imports what candidates' processes need, then forks one behind walls for each request.

Started by the judge as `python -I -m kernelevolve.harness.zygote_server CONTROL LIBRARY`, without walls: it is our own
code. It never opens a candidate's file. A request is one packet of JSON, answered by one packet:

    {"do": "branch", "modules", "arguments", "environment"} + socket   fork a server that imports these modules
    {"do": "spawn", "command", "environment", "descriptors"} + output, ended, descriptors...
                                                                       fork a candidate's process
    {"do": "ready"}                                                    say so once everything is imported

When the control socket closes the server ends, and every child with it.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

_ENDED = struct.Struct("i")
_MOST_MESSAGE, _MOST_DESCRIPTORS = 1 << 17, 16
_WAIT_S = 3.0


class Server:
    """Answers one control socket."""

    def __init__(self, control: socket.socket, library: str) -> None:
        self._control = control
        # Loaded once, here: inside the walls its file can't be seen.
        self._raise_walls = ctypes.PyDLL(library).kernelevolve_raise_walls
        self._library = library
        self._selector = selectors.DefaultSelector()
        self._ended: dict[int, tuple[int, int | None]] = {}
        """pid to pidfd and the descriptor that wants to know (None for another server)"""

    def serve(self) -> None:
        """Until the control socket closes."""
        self._selector.register(self._control, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    data, descriptors, _, _ = socket.recv_fds(self._control, _MOST_MESSAGE, _MOST_DESCRIPTORS)
                    if not data:
                        self._end_all()
                        return
                    self._answer(json.loads(data), descriptors)
                else:
                    self._reap(key.data)

    def _answer(self, request: dict[str, Any], descriptors: list[int]) -> None:
        answer: dict[str, object] = {"pid": os.getpid()}
        passed: list[int] = []
        try:
            if request["do"] == "branch":
                self._branch(request, descriptors[0])
            elif request["do"] == "spawn":
                pid, pidfd = self._spawn(request, descriptors)
                answer, passed = {"pid": pid}, [pidfd]
            elif threads := _other_threads():
                answer = {"error": f"other threads run in it ({', '.join(threads)}): it can't be forked"}
        except OSError as error:
            answer = {"error": str(error)}
        finally:
            for descriptor in descriptors:
                if request["do"] == "branch" or descriptor != descriptors[1]:
                    os.close(descriptor)
        socket.send_fds(self._control, [json.dumps(answer).encode()], passed)

    def _branch(self, request: dict[str, Any], control: int) -> None:
        pid = os.fork()
        if pid:
            self._watch(pid, None)
            return
        try:
            self._let_go()
            os.environ.update(request["environment"])
            server = Server(socket.socket(fileno=os.dup(control)), self._library)
            os.close(control)
            _preload(request["modules"], request["arguments"])
            server.serve()
        except BaseException:  # noqa: BLE001 - the process boundary: the judge sees the socket close, and why in the log
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def _spawn(self, request: dict[str, Any], descriptors: Sequence[int]) -> tuple[int, int]:
        output, ended, *given = descriptors
        pid = os.fork()
        if pid == 0:
            self._become(request, output, dict(zip(request["descriptors"], given, strict=True)))
        return pid, self._watch(pid, ended)

    def _become(self, request: dict[str, Any], output: int, given: dict[int, int]) -> NoReturn:
        """The child: nothing of the server's is left in reach before a candidate's code runs."""
        try:
            os.setsid()
            self._let_go()
            _arrange(output, given)
            os.environ.clear()
            os.environ.update(request["environment"])
            command = request["command"]
            argv = command[command.index("--") + 1 :]
            words = [word.encode() for word in command]
            self._raise_walls(len(words), (ctypes.c_char_p * (len(words) + 1))(*words, None))
            sys.argv = list(argv)
            code = _called(argv)
        except BaseException:  # noqa: BLE001 - the process boundary: nothing may get back into the server's loop
            traceback.print_exc()
            code = 1
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)

    def _let_go(self) -> None:
        """A fork forgets the server's descriptors and children."""
        self._control.close()
        self._selector.close()
        for pidfd, ended in self._ended.values():
            os.close(pidfd)
            if ended is not None:
                os.close(ended)
        self._ended = {}

    def _watch(self, pid: int, ended: int | None) -> int:
        pidfd = os.pidfd_open(pid)
        self._ended[pid] = pidfd, ended
        self._selector.register(pidfd, selectors.EVENT_READ, pid)
        return pidfd

    def _reap(self, pid: int) -> None:
        pidfd, ended = self._ended.pop(pid)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        # Its number is its own until it is reaped, so this hits nobody else: children in the background may be left.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if ended is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if ended is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(ended, _ENDED.pack(os.waitstatus_to_exitcode(status)))
            os.close(ended)

    def _end_all(self) -> None:
        for pid, (_, ended) in self._ended.items():
            kill = os.kill if ended is None else os.killpg
            with contextlib.suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)


def _preload(modules: Sequence[str], arguments: Sequence[str]) -> None:
    loaded = []
    for name in modules:
        loaded.append(importlib.import_module(name))
        _blame(name)
    if warm_up := getattr(loaded[0], "warm_up", None):
        warm_up(*arguments)
        _blame(f"{modules[0]}.warm_up")
    gc.collect()
    gc.freeze()  # what is loaded is never looked at again, so children share its pages


_STARTED: dict[str, str] = {}
"""Name of a thread to what was loaded when it was first seen."""


def _other_threads() -> list[str]:
    """The threads beside this one that don't end within a few seconds, with what started them."""
    deadline = time.monotonic() + _WAIT_S
    while (names := _thread_names()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [f"{name}, since {_STARTED.get(name, 'it serves')}" for name in names]


def _blame(what: str) -> None:
    for name in _thread_names():
        _STARTED.setdefault(name, f"{what} was loaded")


def _thread_names() -> list[str]:
    own, names = threading.get_native_id(), []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if int(task.name) != own:
                names.append((task / "comm").read_text().strip())
    return names


def _arrange(output: int, given: dict[int, int]) -> None:
    """Standard input is empty, output goes where the judge said, the rest has the judge's numbers; nothing else."""
    # Out of the way first: a number that is wanted may be in use.
    free = max([output, *given, *given.values()]) + 1
    kept = {number: os.dup2(fd, free + place) for place, (number, fd) in enumerate(given.items())}
    null = os.open("/dev/null", os.O_RDONLY)
    for source, number in ((null, 0), (output, 1), (output, 2), *((fd, number) for number, fd in kept.items())):
        os.dup2(source, number)
    first = 3
    for number in (*sorted(given), os.sysconf("SC_OPEN_MAX")):
        os.closerange(first, number)
        first = number + 1


def _called(argv: Sequence[str]) -> int:
    try:
        importlib.import_module(argv[0]).main(list(argv))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def main(argv: list[str]) -> None:
    """Import torch, then serve."""
    control, library = int(argv[1]), argv[2]
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    Server(socket.socket(fileno=control), library).serve()


if __name__ == "__main__":
    main(sys.argv)
