"""The judge's end of a runner: a process that holds a candidate, or the baselines, and calls them when told to."""

import fcntl
import logging
import os
import select
import signal
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from kernelevolve.harness.arena import Arena
from kernelevolve.harness.device_faults import fault_of
from kernelevolve.harness.layout import COMMAND
from kernelevolve.harness.outputs import Outputs
from kernelevolve.harness.programs import Program
from kernelevolve.harness.sandbox import STATUS, check_walls
from kernelevolve.harness.zygote import Forked
from kernelevolve.schema import Cheat, Crash, Diagnostic, LimitExceeded, Limits, Raised

log = logging.getLogger(__name__)

ROUND_TRIPS = 16


class RunnerFailed(Exception):  # noqa: N818 - a candidate's failure, caught by the judge and turned into a value
    """The candidate failed while loading or being called."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("; ".join(d.message for d in diagnostics))
        self.diagnostics = diagnostics


class Runner:
    """One runner process over an arena. Use as a context manager; leaving kills the whole group."""

    def __init__(self, program: Program, arena: Arena, limits: Limits) -> None:
        self.outputs = Outputs(arena.layout, arena.access)
        self._copies = arena.access.memory == "copied"
        self._on_device = arena.access.memory != "shared"
        self.has_prepare = False
        self._arena = arena
        self._limits = limits
        self._trusted = program.sandbox is None
        self._process, self._commands, self._answers, self._printed, self._errors, status = self._start(program)
        word = os.read(status, STATUS.size)
        os.close(status)
        self.pid = STATUS.unpack(word)[0] if len(word) == STATUS.size else self._process.pid
        self._awake_ns = 0
        self._awoke: int | None = time.monotonic_ns()
        """None while it is held still"""

    def _start(self, program: Program) -> tuple[subprocess.Popen[bytes] | Forked, int, int, int, int, int]:
        command_read, commands = os.pipe()
        answers, answer_write = os.pipe()
        printed, print_write = os.pipe()
        status, status_write = os.pipe()
        errors, errors_write = os.pipe()
        # A candidate that prints more than anyone reads must not block, nor fill a disk: its writes just fail.
        os.set_blocking(print_write, False)
        os.set_blocking(printed, False)
        fcntl.fcntl(printed, fcntl.F_SETPIPE_SZ, min(self._limits.output_bytes, 1 << 20))
        passed = [command_read, answer_write, self._arena.fd, self.outputs.block.fd]
        argv = [*program.argv, *map(str, passed)]
        if program.sandbox is not None:
            shared = self._arena.layout.input_bytes + self._arena.layout.output_bytes
            memory = None if program.devices else self._limits.memory_bytes + shared
            uid = program.sandbox.user()
            argv = program.sandbox.command(
                argv, self._limits, seconds=600.0, memory_bytes=memory, readable=program.readable,
                writable=program.writable, devices=program.devices, status=status_write, errors=errors_write, uid=uid,
                role=program.role,
            )  # fmt: skip
            if uid is not None:
                for folder in program.writable:
                    os.chown(folder, uid, uid)
            passed += [status_write, errors_write]
        process: subprocess.Popen[bytes] | Forked
        if program.server is not None:
            process = program.server.spawn(
                argv, environment=program.environment, descriptors=passed, output=print_write
            )  # fmt: skip
        else:
            process = subprocess.Popen(
                argv, env=program.environment, stdin=subprocess.DEVNULL, stdout=print_write, stderr=print_write,
                pass_fds=passed, start_new_session=True,
            )  # fmt: skip
        for fd in (command_read, answer_write, print_write, status_write, errors_write):
            os.close(fd)
        return process, commands, answers, printed, errors, status

    def load(self, seconds: float) -> None:
        """Send the layout and wait until the candidate is loaded. Raises `RunnerFailed`."""
        self._send(self._arena.layout.packed())
        self.has_prepare = self._answer(seconds, None) == b"p"

    def prepare(self, workload: int) -> float:
        """Let the candidate repack the constants; microseconds that it took. Raises `RunnerFailed`."""
        return self._command(b"p", workload)

    def call(
        self, workload: int, slots: Sequence[int], function: int = 0, *, graph: bool = False, first: bool = False
    ) -> float:
        """Call once for each slot, in order; microseconds from telling it to hearing back. Raises `RunnerFailed`.

        `graph`: replay what `capture` has captured. `first`: kernels may be compiled meanwhile, which takes longer.
        """
        if self._copies:
            self._command(b"u", workload, slots)
        self.outputs.ready()
        seconds = self._limits.call_s + (self._limits.build_s if first else 0.0)
        return self._command(b"g" if graph else b"c", workload, slots, function, seconds)

    def round_trip(self, workload: int) -> float:
        """Microseconds of a batch without a call: what telling and hearing back take. Raises `RunnerFailed`."""
        took = []
        for _ in range(ROUND_TRIPS):
            self.resume()
            took.append(self.call(workload, ()))
            self.stop()
        return min(took)

    def record(self, workload: int, slots: Sequence[int]) -> None:
        """Call under the profiler that the runner itself carries, into its report. Raises `RunnerFailed`."""
        self._command(b"f", workload, slots)

    def call_without_kernels(self, workload: int, slot: int) -> None:
        """Call with every launch left out. Raises `RunnerFailed`, also for a library's operation."""
        if self._copies:
            self._command(b"u", workload, (slot,))
        self._command(b"n", workload, (slot,))

    def libraries(self) -> frozenset[str]:
        """File names of the code in the candidate's process; none where it may not be looked at."""
        try:
            lines = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
        except OSError as error:
            log.debug("process %d can't be looked at: %s", self.pid, error)
            return frozenset()
        fields = [line.split(maxsplit=5) for line in lines]
        return frozenset(Path(f[5]).name for f in fields if len(f) == 6 and "x" in f[1] and f[5].startswith("/"))

    def capture(self, workload: int, function: int = 0) -> None:
        """Capture the workload's calls, to be replayed. Raises `RunnerFailed`."""
        self._command(b"k", workload, (), function)

    def refresh(self, workload: int, slot: int) -> None:
        """Bring the changed inputs of a slot to where the candidate sees them. Raises `RunnerFailed`."""
        if self._copies:
            self.resume()
            self._command(b"i", workload, (slot,))
            self.stop()

    def answer(self, workload: int, slot: int) -> dict[str, torch.Tensor]:
        """The outputs of a slot as they are now, by name. Raises `RunnerFailed`."""
        if self._copies:
            self._command(b"d", workload, (slot,))
        elif self.outputs.changed_since(workload, slot):
            raise RunnerFailed(
                Cheat(
                    message="the outputs changed after the call had returned",
                    advice="return when the work is done: the runner waits for every stream of the device",
                    name="unfinished work",
                    workload=self._name(workload),
                )
            )
        return self.outputs.read(workload, slot)

    def _command(
        self,
        operation: bytes,
        workload: int,
        slots: Sequence[int] = (),
        function: int = 0,
        seconds: float | None = None,
    ) -> float:
        if select.select([self._answers], [], [], 0)[0]:
            self._refuse_unasked(workload)
        message = COMMAND.pack(operation, function, workload, 0, len(slots)) + bytes(slots)
        started = time.perf_counter_ns()
        self._send(message)
        self._answer(self._limits.call_s if seconds is None else seconds, workload)
        if operation in (b"c", b"g"):
            self.outputs.settle(workload, slots[-1] if slots else 0)
        return (time.perf_counter_ns() - started) / 1e3

    def _refuse_unasked(self, workload: int) -> None:
        if os.read(self._answers, 1) == b"":
            raise self.gone(workload)
        raise RunnerFailed(
            Cheat(
                message="the candidate's process answered before it was asked",
                advice="only compute: the runner's pipes are not the candidate's",
                name="forged answer",
                workload=self._name(workload),
            )
        )

    def _send(self, data: bytes) -> None:
        try:
            os.write(self._commands, data)
        except BrokenPipeError:
            log.debug("the runner is gone; its end is reported when its answer is awaited")

    def _answer(self, seconds: float, workload: int | None) -> bytes:
        if not select.select([self._answers], [], [], seconds)[0]:
            raise RunnerFailed(self._too_long(seconds, workload))
        byte = os.read(self._answers, 1)
        if byte in (b".", b"p"):
            if self._flooded():
                raise RunnerFailed(self._flood(workload))
            return byte
        if byte == b"!":
            text = self._message()
            if "bad_alloc" in text:
                raise RunnerFailed(self._out_of_memory(workload, ""))
            if self._on_device and (fault := fault_of(text, self._name(workload))):
                raise RunnerFailed(fault)
            raise RunnerFailed(
                Raised(message=text, advice="mend what it complains about", workload=self._name(workload))
            )
        raise self.gone(workload)

    def _message(self) -> str:
        """What follows a '!': a length and a text. The runner writes both at once; never wait for more."""
        os.set_blocking(self._answers, False)
        try:
            data = os.read(self._answers, 4096)
        except BlockingIOError:
            return "an error without a message"
        return data[2 : 2 + int.from_bytes(data[:2], "little")].decode(errors="replace")

    def _ended(self, workload: int | None) -> Diagnostic:
        """Why the process is gone."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        check_walls(self._errors)
        printed = self._tail()
        where = self._where(workload)
        said = f"; it printed: {printed}" if printed else ""
        name = self._name(workload)
        if code == 124 or "bad_alloc" in printed:
            return self._out_of_memory(workload, said)
        if self._on_device and (fault := fault_of(printed, name)):
            return fault
        if code < 0:
            sign = next(
                (s.name for s in signal.Signals if s == -code), f"signal {-code}"
            )  # real-time ones have no name
            hints = {
                "SIGSEGV": "a read or write outside a buffer, or a write to an input (inputs are read-only)",
                "SIGILL": "an instruction that this machine lacks",
                "SIGXFSZ": "write no files",
                "SIGABRT": "an assertion, an uncaught exception or heap corruption",
            }
            advice = hints.get(sign, "find out what raises this signal")
            return Crash(message=f"{sign}{where}{said}", advice=advice, workload=name, signal=sign)
        return Crash(
            message=f"the process exited with code {code}{where}{said}", advice="return from run; never exit",
            workload=name, exit_code=code,
        )  # fmt: skip

    def _out_of_memory(self, workload: int | None, said: str) -> Diagnostic:
        limit = self._limits.memory_bytes
        return LimitExceeded(
            message=f"out of memory{self._where(workload)}: the limit is {limit >> 20} MiB{said}", resource="memory",
            limit=limit, advice="allocate less, once, and keep scratch buffers between calls",
            workload=self._name(workload),
        )  # fmt: skip

    def _where(self, workload: int | None) -> str:
        return " while it was loaded" if workload is None else f" on {self._name(workload)}"

    def _too_long(self, seconds: float, workload: int | None) -> Diagnostic:
        if self._flooded():
            return self._flood(workload)
        where = f" on {self._name(workload)}" if workload is not None else " to load"
        return LimitExceeded(
            message=f"took longer than {seconds:g} s{where}", advice="an endless loop, a deadlock, or far too slow",
            resource="time", limit=seconds, workload=self._name(workload),
        )  # fmt: skip

    def _flood(self, workload: int | None) -> Diagnostic:
        return LimitExceeded(
            message="printed more than a kernel has to say", advice="print nothing", resource="output",
            limit=self._limits.output_bytes, workload=self._name(workload),
        )  # fmt: skip

    def _flooded(self) -> bool:
        """Whether the pipe that takes what it prints is full (it is never read while the candidate lives)."""
        if self._trusted:
            return False
        waiting = int.from_bytes(fcntl.ioctl(self._printed, termios.FIONREAD, b"\0" * 4), "little")
        return waiting >= fcntl.fcntl(self._printed, fcntl.F_GETPIPE_SZ) // 2

    def _tail(self) -> str:
        try:
            return os.read(self._printed, 1 << 20).decode(errors="replace").strip()[-400:]
        except BlockingIOError:
            return ""

    def name(self, workload: int) -> str:
        """A workload's name by its position."""
        return self._arena.layout.workloads[workload].workload.name

    def _name(self, workload: int | None) -> str | None:
        return None if workload is None else self.name(workload)

    @property
    def awake_ns(self) -> int:
        """How long it was not held still, nanoseconds."""
        return self._awake_ns + (time.monotonic_ns() - self._awoke if self._awoke else 0)

    def gone(self, workload: int | None) -> RunnerFailed:
        """Why the process has ended, or is ended now."""
        return RunnerFailed(self._ended(workload))

    def finish(self, seconds: float) -> bool:
        """Let the process end by itself, as profilers need it; whether it did within the time."""
        os.close(self._commands)
        self._commands = os.open(os.devnull, os.O_WRONLY)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Hold the process still, so that its idle threads don't spin on cores that another one needs."""
        self._signal(signal.SIGSTOP)
        self._awake_ns, self._awoke = self.awake_ns, None

    def hold(self) -> None:
        """The same while its outputs are looked at; one that works on copies has to bring them itself."""
        if not self._copies:
            self.stop()

    def resume(self) -> None:
        """Let it go on."""
        self._awoke = self._awoke or time.monotonic_ns()
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            log.debug("the runner is gone; the next command reports it")

    def kill(self) -> None:
        """End the process and everything that it started."""
        for kill, pid in ((os.kill, self.pid), (os.killpg, self._process.pid)):
            try:
                kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                log.debug("process %d has ended by itself", pid)
        self._process.wait()

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for fd in (self._commands, self._answers, self._printed, self._errors):
            os.close(fd)
        self.outputs.close()
