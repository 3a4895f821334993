"""The judge's end of a fork server: a process of ours with torch and Triton loaded, forked once for every candidate.

The server is started with a clean environment, runs nothing but our own code and holds no input, answer or key; a
child raises the same walls as a program that is started (`native/walls.cpp`) before it looks at the candidate, and
has no descriptor but those that it is given. The server can't be reached from inside them.
"""

import json
import logging
import os
import selectors
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernelevolve.errors import JudgeError, KernelevolveError
from kernelevolve.harness.programs import device_environment, python_command
from kernelevolve.harness.sandbox import Finished, Sandbox, check_walls, clean_environment, native_tool
from kernelevolve.schema import Limits

log = logging.getLogger(__name__)

SERVER = "kernelevolve.harness.zygote_server"
ENDED = struct.Struct("i")
"""What the server writes once a child has ended: its return code as `subprocess` has it, negative for a signal."""
_START_S = 120.0
_MOST_MESSAGE = 1 << 17


@dataclass(frozen=True)
class Preload:
    """What a server holds ready: modules of ours, imported in an environment, and warmed up.

    The first module may have a function `warm_up(*arguments)`.
    """

    modules: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    device: bool = False
    """whether what is forked uses a GPU"""


class Forked:
    """A child of a server, as `subprocess.Popen` would show it."""

    def __init__(self, pid: int, pidfd: int, ended: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.returncode: int | None = None
        self.ended = ended

    def wait(self, timeout: float | None = None) -> int:
        """The return code, negative for a signal. Raises `subprocess.TimeoutExpired`, and `JudgeError`."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self.ended, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(SERVER, timeout or 0.0)
            word = os.read(self.ended, ENDED.size)
            os.close(self.ended)
            os.close(self.pidfd)
            if len(word) != ENDED.size:
                self.returncode = -signal.SIGKILL
                raise JudgeError("the fork server has died", remedy="look for an out-of-memory kill; try again")
            self.returncode = int(ENDED.unpack(word)[0])
        return self.returncode

    def kill(self) -> None:
        """End it with everything that it started; the server kills what is left of its process group."""
        if self.returncode is None:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                log.debug("process %d has ended by itself", self.pid)


class Zygote:
    """A running server. Safe to use from several threads."""

    def __init__(self, control: socket.socket, process: subprocess.Popen[bytes] | None = None) -> None:
        self._control = control
        self._process = process
        self._lock = threading.Lock()
        self._owner = os.getpid()

    @staticmethod
    def start(cache_dir: Path, environment: Mapping[str, str] = {}) -> "Zygote":
        """A server that has imported torch. Raises `JudgeError` where it doesn't come up.

        `environment`: what the loader of libraries reads when a process starts, and never again.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command, _ = python_command(SERVER, str(theirs.fileno()), str(native_tool("walls", cache_dir, function=True)))
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        # Whoever asks torch whether there is a device must not start the driver by it: then nothing may be forked.
        threads["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        with theirs:
            process = subprocess.Popen(
                command, env={**clean_environment(), **threads, **environment}, stdin=subprocess.DEVNULL, cwd="/",
                stdout=subprocess.DEVNULL, stderr=None, pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        return Zygote(ours, process)

    def branch(self, preload: Preload) -> "Zygote":
        """Another server, forked from this one, that has loaded more. Raises `JudgeError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._ask(
                {"do": "branch", "modules": preload.modules, "arguments": preload.arguments,
                 "environment": dict(preload.environment)},
                (theirs.fileno(),),
            )  # fmt: skip
        branch = Zygote(ours)
        branch._ask({"do": "ready"}, ())
        return branch

    def spawn(
        self, command: Sequence[str], *, environment: Mapping[str, str], descriptors: Sequence[int], output: int
    ) -> Forked:
        """Fork a child behind walls, where it calls `main([module, *arguments])` of a module of ours.

        `command` is what `Sandbox.command` gives for `(module, *arguments)`. The child has the descriptors by the
        numbers that they have here, `output` as standard output and error, and exactly this environment.
        """
        ended, ended_write = os.pipe()
        try:
            pid, pidfd = self._ask(
                {"do": "spawn", "command": list(command), "environment": dict(environment),
                 "descriptors": list(descriptors)},
                (output, ended_write, *descriptors),
            )  # fmt: skip
        except JudgeError:
            os.close(ended)
            raise
        finally:
            os.close(ended_write)
        assert pidfd is not None
        return Forked(pid, pidfd, ended)

    def _ask(self, message: dict[str, object], descriptors: Sequence[int]) -> tuple[int, int | None]:
        """The pid that the server answers with, and a descriptor if it sends one. Raises `JudgeError`."""
        if os.getpid() != self._owner:
            raise JudgeError("a fork server belongs to one process", remedy="start another one after forking")
        try:
            with self._lock:
                self._control.settimeout(_START_S)
                socket.send_fds(self._control, [json.dumps(message).encode()], list(descriptors))
                data, passed, _, _ = socket.recv_fds(self._control, _MOST_MESSAGE, 1)
            answer = json.loads(data) if data else {"error": "it has ended"}
        except OSError as error:
            answer, passed = {"error": str(error) or "it doesn't answer"}, []
        if "error" in answer:
            raise JudgeError(f"the fork server: {answer['error']}", remedy="run kernelevolve doctor")
        return int(answer["pid"]), passed[0] if passed else None

    def close(self) -> None:
        """End the server and all its children."""
        self._control.close()
        if self._process is not None:
            self._process.wait()


@cache
def _trunk(cache_dir: Path, _process: int, environment: tuple[tuple[str, str], ...]) -> Zygote:
    return Zygote.start(cache_dir, dict(environment))


@cache
def _branches(_cache_dir: Path, _process: int) -> dict[Preload, Zygote | None]:
    return {}


_LOCK = threading.Lock()


def zygote(preload: Preload, cache_dir: Path) -> Zygote | None:
    """The server of this process that holds these modules ready, started at the first call.

    None where none can be had (said in the log): whoever asks then starts a program instead.
    """
    with _LOCK:
        branches = _branches(cache_dir, os.getpid())
        if preload not in branches:
            try:
                environment = tuple(device_environment().items()) if preload.device else ()
                branches[preload] = _trunk(cache_dir, os.getpid(), environment).branch(preload)
            except (KernelevolveError, OSError) as error:
                log.warning("no fork server for %s: every candidate starts from nothing (%s)", preload.modules, error)
                branches[preload] = None
        return branches[preload]


def run_forked(
    server: Zygote,
    sandbox: Sandbox,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    limits: Limits,
    seconds: float,
    readable: Sequence[Path],
    folder: Path,
) -> Finished:
    """Call `main(argv)` of the module `argv[0]` in a child of the server, as `Sandbox.run` runs a program.

    `folder` is where it works and may write. Output and wall time are bounded.
    """
    uid = sandbox.user()
    if uid is not None:
        os.chown(folder, uid, uid)
    errors, errors_write = os.pipe()
    printed, print_write = os.pipe()
    command = sandbox.command(
        argv, limits, seconds=seconds, memory_bytes=limits.memory_bytes, readable=readable, writable=(folder,),
        cwd=folder, errors=errors_write, uid=uid,
    )  # fmt: skip
    started = time.monotonic()
    try:
        try:
            child = server.spawn(
                command, environment={**clean_environment(), **environment}, descriptors=(errors_write,),
                output=print_write,
            )  # fmt: skip
        finally:
            os.close(errors_write)
            os.close(print_write)
        output, timed_out = _collect(printed, child, started + seconds, limits.output_bytes)
        child.kill()
        returncode = child.wait(_START_S)
        check_walls(errors)
    finally:
        os.close(errors)
        os.close(printed)
    return Finished(returncode, output.decode(errors="replace"), time.monotonic() - started, timed_out)


def _collect(printed: int, child: Forked, deadline: float, most: int) -> tuple[bytes, bool]:
    """What the child prints until it ends, prints too much, or runs out of time (then True)."""
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(printed, selectors.EVENT_READ)
        selector.register(child.ended, selectors.EVENT_READ)
        while len(data) < most:
            ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
            if not ready:
                return data, True
            if printed not in ready:
                break
            chunk = os.read(printed, 1 << 16)
            data += chunk
            if not chunk:
                selector.unregister(printed)
    return data, False
