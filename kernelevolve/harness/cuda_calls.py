"""What is said to, and heard from, the process that finds out what a CUDA candidate launches (`cuda_launches.cpp`)."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from kernelevolve.hardware.devices import Gpu
from kernelevolve.harness import cubin
from kernelevolve.harness.launches import LaunchWorkload
from kernelevolve.harness.layout import DLPACK
from kernelevolve.harness.sandbox import Finished
from kernelevolve.schema import Crash, Diagnostic, LimitExceeded, Raised, Record, TensorUse, Uncaptured

MOST_BYTES = 64 << 20
"""Of any file that is read back."""

_UNKNOWN = re.compile(r"undefined symbol: (\w+)")


@dataclass(frozen=True)
class Compiled:
    """One kernel of the library: its code, what it needs a thread (stack in bytes), static shared bytes a block."""

    kernel: cubin.Kernel
    registers: int
    stack: int
    shared: int


class Called(Record):
    """A launch, as it is noted down. `workload` is its position among those of the job."""

    workload: int
    number: int
    symbol: str
    name: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    dynamic_shared: int
    allowed_shared: int
    current_stream: bool
    cluster: bool
    tensors: tuple[TensorUse, ...]

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.block[0] * self.block[1] * self.block[2]

    @property
    def kernel(self) -> str:
        """Its name with its template arguments."""
        text = self.name.replace("(anonymous namespace)::", "")
        depth = begin = 0
        for at, sign in enumerate(text):
            depth += {"<": 1, ">": -1}.get(sign, 0)
            if depth == 0 and sign == " ":
                begin = at + 1  # what came before was the type of the result
            if depth == 0 and sign == "(":
                return text[begin:at]
        return text[begin:]


class Stopped(Record):
    """What kept `run` from getting to its end on a workload."""

    workload: int
    kind: Literal["raised", "uncaptured", "crash"]
    message: str


class _Line(Record):
    launch: Called | None = None
    stopped: Stopped | None = None
    finished: bool = False


@dataclass(frozen=True)
class Heard:
    """The report, as far as it could be read. Written by the candidate's process: not trusted."""

    launches: tuple[Called, ...]
    stops: tuple[Stopped, ...]
    finished: bool
    """whether the process came to its own end"""


def job(gpu: Gpu, kernels: dict[str, Compiled], workloads: Sequence[LaunchWorkload]) -> str:
    """What the process is told."""
    return "\n".join((*_device(gpu), *_needs(kernels), *_calls(workloads), ""))


def heard(report: Path, workloads: int) -> Heard:
    """Every whole line of the report that makes sense."""
    launches, stops, finished = [], [], False
    try:
        text = read(report)
    except OSError:
        text = b""
    for line in text.splitlines():
        try:
            said = _Line.model_validate_json(line)
        except ValidationError:
            continue
        if said.launch is not None and 0 <= said.launch.workload < workloads:
            launches.append(said.launch)
        if said.stopped is not None and 0 <= said.stopped.workload <= workloads:
            stops.append(said.stopped)
        finished |= said.finished
    return Heard(tuple(launches), tuple(stops), finished)


def finding(stopped: Stopped, workload: str | None) -> Diagnostic:
    """What it means for the candidate."""
    if stopped.kind == "uncaptured":
        advice = "size launches by shapes alone and let kernels read values; as it is, only a device can try it"
        return Uncaptured(message=stopped.message, advice=advice, workload=workload)
    if stopped.kind == "crash":
        advice = "mend the host's code: it breaks before any kernel runs"
        return Crash(message=stopped.message, advice=advice, workload=workload, signal="SIGSEGV")
    return Raised(message=stopped.message, advice="mend what the message names", workload=workload)


def end_of(done: Finished, said: Heard, seconds: float) -> Diagnostic | None:
    """A finding for a process that did not come to its own end."""
    if done.timed_out:
        return LimitExceeded(
            message=f"run and prepare took longer than {seconds:g} s, though no kernel ran",
            advice="the host's code loops: leave the work to kernels", resource="time", limit=seconds,
        )  # fmt: skip
    if unknown := _UNKNOWN.search(done.output):
        return Uncaptured(
            message=f"run calls {unknown[1]}, of which nothing is known without a device",
            advice="nothing is wrong with that; as it is, only a device can try it",
        )
    if done.returncode == 0 and (said.finished or said.stops):
        return None
    return Crash(
        message=f"the capturing process ended with code {done.returncode}; it printed: {done.output.strip()[-300:]}",
        advice="run ends the process, or breaks it", exit_code=done.returncode,
    )  # fmt: skip


def read(path: Path) -> bytes:
    """The beginning of a file that was written inside the walls. A link is not followed. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MOST_BYTES)


def _device(gpu: Gpu) -> Iterator[str]:
    major, minor = gpu.capability
    values = {
        "multiprocessors": gpu.multiprocessors, "threads_per_block": gpu.threads_per_block,
        "shared_per_block": gpu.shared_per_block, "shared_per_multiprocessor": gpu.shared_per_multiprocessor,
        "shared_reserved": gpu.shared_reserved, "warps_per_multiprocessor": gpu.warps_per_multiprocessor,
        "blocks_per_multiprocessor": gpu.blocks_per_multiprocessor,
        "registers_per_multiprocessor": gpu.registers_per_multiprocessor, "major": major, "minor": minor,
    }  # fmt: skip
    return (f"gpu {name} {value}" for name, value in values.items())


def _needs(kernels: dict[str, Compiled]) -> Iterator[str]:
    for symbol, compiled in kernels.items():
        yield " ".join(map(str, ("kernel", symbol, compiled.registers, compiled.shared, *compiled.kernel.parameters)))


def _calls(workloads: Sequence[LaunchWorkload]) -> Iterator[str]:
    for number, workload in enumerate(workloads):
        yield f"workload {number}"
        for argument in workload.arguments:
            if argument.shape is None:
                yield f"scalar {argument.value}"
                continue
            kind = "output" if argument.output else "constant" if argument.constant else "input"
            yield " ".join(map(str, ("tensor", kind, *DLPACK[argument.dtype], *argument.shape)))
