"""What every Python runner does: load when told to, call when told to, and say nothing but that it came back.

The protocol is described in native/runner.cpp; Python runners know seven operations more. 'u' and 'd' move outputs to
and from a device that works on copies, 'i' moves inputs there, 'k' captures a workload's calls in graphs, one a slot,
'g' replays them, 'f' calls under Triton's own
profiler, and 'n' calls with every launch left out.
"""

import ctypes
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from kernelevolve.harness.access import Memory
from kernelevolve.harness.layout import COMMAND, CONSTANT, OUTPUT, Layout, Reader, unpack
from kernelevolve.harness.profilers.proton import recording
from kernelevolve.harness.runner_memory import RunnerMemory, open_memory
from kernelevolve.languages.base import Kernel

PR_SET_PDEATHSIG = 1

Load = Callable[[], tuple[Sequence[Kernel], Kernel | None]]
"""The functions that can be called, by number, and `prepare` where there is one."""


def serve(
    load: Load,
    memory: Memory,
    torch_device: str,
    descriptors: Sequence[int],
    *,
    folder: Path,
    report: Path | None = None,
) -> None:
    """Answer commands until the judge closes the pipe.

    `folder` holds the code whose lines errors are reported by, `report` is where a profile goes.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    commands, answers, inputs, outputs = descriptors
    read = Reader(commands)
    try:
        layout = unpack(read)
        held = open_memory(memory, torch_device, layout, inputs, outputs)
        try:
            functions, prepare = load()
        except Exception as error:  # noqa: BLE001 - the process boundary: what loading raises becomes an answer
            _refuse(answers, error, folder)
            return
        runner = _Held(functions, prepare, held, layout, report)
        os.write(answers, b"p" if prepare else b".")
        while True:
            operation, function, workload, _, count = COMMAND.unpack(read(COMMAND.size))
            slots = read(count)
            try:
                runner.act(operation, function, workload, slots)
            except Exception as error:  # noqa: BLE001 - the process boundary: what a kernel raises becomes an answer
                _refuse(answers, error, folder)
            else:
                os.write(answers, b".")
    except EOFError:
        return


class _Held:
    """Loaded functions and the memory they work on."""

    def __init__(
        self,
        functions: Sequence[Kernel],
        prepare: Kernel | None,
        memory: RunnerMemory,
        layout: Layout,
        report: Path | None,
    ) -> None:
        self._functions = functions
        self._prepare = prepare
        self._memory = memory
        self._layout = layout
        self._report = report
        self._graphs: dict[tuple[int, int], list[Any]] = {}

    def act(self, operation: bytes, function: int, workload: int, slots: bytes) -> None:
        """Do what a command says; returns once it is done."""
        memory, run = self._memory, self._functions[function]
        if operation == b"c":
            calls = memory.calls[workload]
            for slot in slots:
                run(*calls[slot])
            if not slots:
                memory.nudge()
        elif operation == b"n":
            from kernelevolve.harness.launchless import without_kernels  # imports Triton

            with without_kernels():
                self.act(b"c", function, workload, slots)
        elif operation == b"f":
            assert self._report is not None
            with recording(self._report):
                self.act(b"c", function, workload, slots)
        elif operation == b"p":
            self._pack(workload)
        elif operation == b"k":
            self._graphs[function, workload] = [_captured(run, call) for call in memory.calls[workload]]
        elif operation == b"g":
            graphs = self._graphs[function, workload]
            for slot in slots:
                graphs[slot].replay()
        elif operation == b"i":
            memory.renew(workload, slots)
        elif operation == b"u":
            memory.upload(workload, slots)
        elif operation == b"d":
            memory.download(workload, slots)
        memory.synchronize()

    def _pack(self, workload: int) -> None:
        """Let the candidate repack the constants; the result goes between inputs and outputs."""
        arguments, calls = self._layout.workloads[workload].arguments, self._memory.calls
        inputs = sum(a.kind != OUTPUT for a in arguments)
        outputs = len(arguments) - inputs
        first = calls[workload][0]
        assert self._prepare is not None
        packed = self._prepare(*(first[i] for i, a in enumerate(arguments) if a.kind == CONSTANT))
        calls[workload] = [(*call[:inputs], packed, *call[len(call) - outputs :]) for call in calls[workload]]


def _captured(run: Kernel, call: tuple[Any, ...]) -> Any:
    """One call as a CUDA graph, after a warm-up on a side stream as torch asks for."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run(*call)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(*call)
    return graph


def _refuse(answers: int, error: BaseException, folder: Path) -> None:
    """Answer with the innermost cause and the line of the candidate's that it comes from."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent == folder]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
    text = f"{where}{type(error).__name__}: {error}".encode()[:4000]
    os.write(answers, b"!" + len(text).to_bytes(2, "little") + text)
