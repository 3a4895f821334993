"""Walls and limits around everything that isn't ours: compilers at work on candidates, and candidates.

`native/walls.cpp` raises the walls and becomes the program. Where the machine allows namespaces the program sees
the system's libraries, the folders named here and an empty /tmp, no other process and no network; where it doesn't,
resource limits and the killing of the process group remain. What held is part of every evaluation's record.
"""

import logging
import os
import selectors
import signal
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import get_native_id
from typing import get_args

from kernelevolve.errors import JudgeError, ToolchainError
from kernelevolve.harness.seccomp import Role, filter_file
from kernelevolve.languages.cpp import compiler
from kernelevolve.languages.cxx import ffi_folder
from kernelevolve.schema import Limits, digest_of

log = logging.getLogger(__name__)

NATIVE = Path(__file__).parent / "native"
BUNDLED = Path(__file__).resolve().parents[1] / "bundled"
"""Targets, with their references: no program inside the walls sees them, whichever folders it may read."""
UNPRIVILEGED = 60_000
"""First of the 4096 user numbers that candidates run under when the judge is root."""


@dataclass(frozen=True)
class Finished:
    """A bounded program that has ended."""

    returncode: int
    output: str
    seconds: float
    timed_out: bool = False


@dataclass(frozen=True)
class Sandbox:
    """The walls that this machine allows."""

    launcher: Path
    namespaces: bool
    own_user: bool
    """whether each program becomes a user of its own (only where the judge is root)"""
    filters: Mapping[Role, Path] = field(default_factory=dict)
    """of system calls, by what a program is; empty where there are none"""

    @staticmethod
    @cache
    def open(cache_dir: Path) -> "Sandbox":
        """Build the launcher if need be, and try what works here."""
        launcher, library = native_tool("walls", cache_dir), ffi_folder()
        refused = _tried([launcher, "--namespaces", "--", "/usr/bin/true"])
        if refused is not None:
            log.warning("no namespaces on this machine (%s): limits only", refused)
        inside = ["--namespaces", "--ro", launcher, "--ro", library] if refused is None else []
        reads = ["/usr/bin/test", "-x", launcher, "-a", "-r", library / "include" / "tvm" / "ffi" / "tvm_ffi.h"]
        own_user = os.geteuid() == 0 and _tried([launcher, *inside, "--uid", UNPRIVILEGED, "--", *reads]) is None
        if os.geteuid() == 0 and not own_user:
            log.warning("candidates run as root: no other user can read both %s and %s", cache_dir, library)
        calls = filter_file(cache_dir / "native")
        if calls is not None and (why := _tried([launcher, "--seccomp", calls, "--", "/usr/bin/true"])):
            log.warning("no filter for system calls on this machine: %s", why)
            calls = None
        roles = get_args(Role) if calls else ()
        filters = {role: made for role in roles if (made := filter_file(cache_dir / "native", role))}
        return Sandbox(launcher, namespaces=refused is None, own_user=own_user, filters=filters)

    @property
    def walls(self) -> tuple[str, ...]:
        """What holds a candidate here, for the evaluation's record."""
        always = ("own-process", "rlimits", "no-new-privileges", "clean-environment")
        spaces = ("pid-namespace", "network-namespace", "ipc-namespace", "own-root") if self.namespaces else ()
        user = ("unprivileged-user",) if self.own_user else ()
        return (*always, *spaces, *user, *(("seccomp",) if self.filters else ()))

    def require_all(self) -> None:
        """Raises `JudgeError` that names what is missing, where this machine doesn't allow every wall."""
        missing = [] if self.namespaces else ["namespaces (user, mount, process, network, IPC)"]
        missing += [] if self.filters else ["a filter of system calls (seccomp)"]
        missing += [] if self.own_user or os.geteuid() != 0 else ["an unprivileged user"]
        if missing:
            raise JudgeError(
                f"the sandbox lacks {' and '.join(missing)}, and all walls are required",
                remedy="allow them (kernelevolve doctor says how), or leave out --require-sandbox full",
            )

    def user(self) -> int | None:
        """A user number for the next program; None: it stays who the judge is."""
        return UNPRIVILEGED + time.monotonic_ns() // 1000 % 4096 if self.own_user else None

    def command(
        self,
        argv: Sequence[str],
        limits: Limits,
        *,
        seconds: float,
        memory_bytes: int | None,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        devices: Sequence[Path] = (),
        cwd: Path = Path("/"),
        errors: int,
        status: int | None = None,
        uid: int | None = None,
        role: Role = "usual",
    ) -> list[str]:
        """The command line that runs `argv` inside the walls; `seconds` of CPU time a core.

        `memory_bytes` of address space, None for any; `devices` are the device nodes that it may open, `role` says
        which system calls it needs.
        To the descriptor `errors` goes what kept a wall from being raised (the program itself never has it), to
        `status` the program's process id.
        """
        cores = os.cpu_count() or 1
        line = [str(self.launcher), "--cpu", str(int(seconds * cores) + 1)]
        line += ["--memory", str(memory_bytes)] if memory_bytes is not None else []
        line += [
            "--file-size",
            str(limits.file_bytes),
            "--processes",
            str(limits.processes + (0 if self.namespaces or self.own_user else _running_already())),
            "--cwd",
            str(cwd),
            "--errors",
            str(errors),
        ]
        if self.namespaces:
            line.append("--namespaces")
            line += [part for path in _outside_system(readable) for part in ("--ro", str(path))]
            line += [part for path in writable for part in ("--rw", str(path))]
            line += [part for path in devices for part in ("--device", str(path))]
            line += ["--hide", str(BUNDLED)]
        # A profiler's liberties are those of one who is by himself: without namespaces they are not given.
        calls = self.filters.get(role if role != "profiled" or self.namespaces else "usual")
        line += ["--seccomp", str(calls)] if calls is not None else []
        if uid is not None:
            line += ["--uid", str(uid)]
        if status is not None:
            line += ["--status", str(status)]
        return [*line, "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        limits: Limits,
        seconds: float,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        cwd: Path = Path("/"),
    ) -> Finished:
        """Run a program to its end, its output and wall time bounded; killed as a group past them."""
        uid = self.user()
        if uid is not None:
            for folder in writable:
                os.chown(folder, uid, uid)
        errors, errors_write = os.pipe()
        command = self.command(
            argv, limits, seconds=seconds, memory_bytes=limits.memory_bytes, readable=readable, writable=writable,
            cwd=cwd, errors=errors_write, uid=uid,
        )  # fmt: skip
        started = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(clean_environment()), start_new_session=True, pass_fds=(errors_write,),
        )  # fmt: skip
        os.close(errors_write)
        output, timed_out = _collect(process, started + seconds, limits.output_bytes)
        kill_group(process)
        try:
            check_walls(errors)
        finally:
            os.close(errors)
        return Finished(process.returncode, output.decode(errors="replace"), time.monotonic() - started, timed_out)


def _collect(process: subprocess.Popen[bytes], deadline: float, most: int) -> tuple[bytes, bool]:
    """What the process prints until it ends, prints too much, or runs out of time (then True)."""
    assert process.stdout is not None
    printed = process.stdout.fileno()
    ended = os.pidfd_open(process.pid)  # children in the background may keep the output open for longer
    chunks: list[bytes] = []
    size = 0
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(printed, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while size < most:
                ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
                if not ready:
                    return b"".join(chunks), True
                if printed not in ready:
                    break
                chunk = os.read(printed, 65536)
                chunks.append(chunk)
                size += len(chunk)
                if not chunk:
                    selector.unregister(printed)
    finally:
        os.close(ended)
    return b"".join(chunks), False


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process with everything in its group (and, with namespaces, everything it ever started)."""
    try:
        os.killpg(process.pid, signal.SIGKILL)  # also after its own end: children in the background may be left
    except ProcessLookupError:
        log.debug("process group %d has ended by itself", process.pid)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def check_walls(errors: int) -> None:
    """Read what the launcher of an ended program had to say. Raises `JudgeError` where a wall couldn't be raised."""
    said = os.read(errors, 4096).decode(errors="replace").strip()
    if said:
        raise JudgeError(f"the sandbox can't be set up: {said}", remedy="run kernelevolve doctor")


def clean_environment(threads: int | None = None) -> Mapping[str, str]:
    """All that a candidate or compiler finds in its environment."""
    fixed = {"PATH": "/usr/bin:/bin", "LANG": "C", "HOME": "/tmp"}
    return fixed if threads is None else {**fixed, **openmp_environment(threads)}


def openmp_environment(threads: int) -> Mapping[str, str]:
    """The same for candidate and baseline: so many threads, each on a core of its own.

    Left to the scheduler, two threads that wait for each other may share a core for milliseconds at a time.
    """
    return {
        "OMP_NUM_THREADS": str(threads), "OMP_DYNAMIC": "false", "OMP_PROC_BIND": "close", "OMP_PLACES": "cores",
    }  # fmt: skip


def _tried(command: Sequence[object]) -> str | None:
    """What a command that should end well had to say where it didn't."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=20)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def _running_already() -> int:
    """Processes and threads of this user: where a program shares its user number, the limit counts them too."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == os.geteuid():
                count += len(list((process / "task").iterdir()))
        except OSError:  # it has ended meanwhile
            continue
    return count


def _outside_system(paths: Sequence[Path]) -> list[Path]:
    """Without what lies under /usr, which every program sees anyway. Symbolic links keep the name they go by."""
    return [path for path in dict.fromkeys(p.absolute() for p in paths) if not path.is_relative_to("/usr")]


@cache
def native_tool(name: str, cache_dir: Path, *, function: bool = False, include: tuple[Path, ...] = ()) -> Path:
    """One of our own C++ programs (`native/<name>.cpp`), built once; or a library with what it does as a function.

    `include`: folders of headers that it needs beside tvm-ffi's. Raises `ToolchainError`.
    """
    source = NATIVE / f"{name}.cpp"
    gxx, version = compiler()
    ffi = ffi_folder()
    flags = ["-std=c++17", "-O2", f"-I{ffi / 'include'}", *(f"-I{folder}" for folder in include)]
    flags += ["-shared", "-fPIC", f"-D{name.upper()}_AS_FUNCTION"] if function else []
    loads = name in ("runner", "cuda_launches")  # candidates, which may call functions of the program's own
    link = [f"-L{ffi / 'lib'}", "-ltvm_ffi", f"-Wl,-rpath,{ffi / 'lib'}", "-ldl", "-rdynamic"] if loads else []
    tool = cache_dir / "native" / f"{name}-{digest_of(source.read_text(), version, flags, link)[:16]}"
    if not tool.is_file():
        partial = tool.with_name(f".{tool.name}.{os.getpid()}.{get_native_id()}")
        try:
            tool.parent.mkdir(parents=True, exist_ok=True)
            run_trusted([gxx, *flags, str(source), "-o", str(partial), *link])
            partial.chmod(0o755)  # whichever user runs it, whatever our umask
            partial.rename(tool)
        except OSError as error:
            raise ToolchainError(
                f"can't write {tool.parent}: {error}", remedy="set `cache` to a folder that can be written"
            ) from error
    return tool


def run_trusted(argv: Sequence[str], cwd: Path | None = None) -> None:
    """Run one of our own builds, without walls. Raises `ToolchainError` with what it printed."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolchainError(
            f"{argv[0]} can't build our own code: {done.stderr.strip()[-600:]}",
            remedy="run kernelevolve doctor; a full disk is the usual reason",
        )


STATUS = struct.Struct("i")
"""What `walls --status` writes: the program's pid."""
