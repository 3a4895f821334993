"""Where the tensors of a job's workloads lie in shared memory, and how a runner is told."""

import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

from kernelevolve.schema import Input, Target, Workload

ALIGNMENT = 64
DLPACK: dict[str, tuple[int, int]] = {
    "float64": (2, 64), "float32": (2, 32), "float16": (2, 16), "bfloat16": (4, 16),
    "float8_e4m3fn": (10, 8), "float8_e5m2": (12, 8),
    "int64": (0, 64), "int32": (0, 32), "int16": (0, 16), "int8": (0, 8), "uint8": (1, 8), "bool": (6, 8),
}  # fmt: skip
"""Element type to DLPack's type code and bits."""

SCALAR, INPUT, CONSTANT, OUTPUT = range(4)
COMMAND = struct.Struct("<cBBBH")
"""Operation (c call, p prepare), function, workload, unused, number of slots that follow (one byte each)."""

_ARGUMENT = struct.Struct("<BBBBqQQ")
_HEAD = struct.Struct("<IQQ")
_WORKLOAD = struct.Struct("<II")


@dataclass(frozen=True)
class Argument:
    """One argument of `run` on one workload; offsets and strides in bytes."""

    name: str
    kind: int
    dtype: str
    shape: tuple[int, ...]
    value: int
    offset: int
    stride: int
    """between slots; 0 where all slots share one tensor"""
    size: int


@dataclass(frozen=True)
class WorkloadLayout:
    """The arguments of one workload, in the order of `run`."""

    workload: Workload
    slots: int
    arguments: tuple[Argument, ...]

    def tensors(self, *kinds: int) -> tuple[Argument, ...]:
        """Arguments of these kinds."""
        return tuple(a for a in self.arguments if a.kind in kinds)


@dataclass(frozen=True)
class Layout:
    """All workloads of a job over two blocks of shared memory."""

    workloads: tuple[WorkloadLayout, ...]
    input_bytes: int
    output_bytes: int

    def index(self, name: str) -> int:
        """Position of a workload by name."""
        return next(i for i, w in enumerate(self.workloads) if w.workload.name == name)

    def packed(self) -> bytes:
        """What a runner reads first (the format is described in native/runner.cpp)."""
        parts = [_HEAD.pack(len(self.workloads), self.input_bytes, self.output_bytes)]
        for layout in self.workloads:
            parts.append(_WORKLOAD.pack(layout.slots, len(layout.arguments)))
            for a in layout.arguments:
                code, bits = DLPACK[a.dtype]
                parts.append(_ARGUMENT.pack(a.kind, code, bits, len(a.shape), a.value, a.offset, a.stride))
                parts.append(struct.pack(f"<{len(a.shape)}q", *a.shape))
        return b"".join(parts)


def unpack(read: Callable[[int], bytes]) -> Layout:
    """Read a layout back (the Python runner's side); workloads carry no names there."""
    names = {code: name for name, code in DLPACK.items()}
    count, input_bytes, output_bytes = _HEAD.unpack(read(_HEAD.size))
    workloads = []
    for number in range(count):
        slots, arguments = _WORKLOAD.unpack(read(_WORKLOAD.size))
        found = []
        for _ in range(arguments):
            kind, code, bits, dimensions, value, offset, stride = _ARGUMENT.unpack(read(_ARGUMENT.size))
            shape = struct.unpack(f"<{dimensions}q", read(8 * dimensions))
            size = math.prod(shape) * bits // 8 if kind != SCALAR else 0
            found.append(Argument("", kind, names[code, bits], shape, value, offset, stride, size))
        anonymous = Workload(name=str(number), role="check", device="cpu", axes={})
        workloads.append(WorkloadLayout(anonymous, slots, tuple(found)))
    return Layout(tuple(workloads), input_bytes, output_bytes)


def lay_out(target: Target, workloads: tuple[Workload, ...], slots: dict[str, int]) -> Layout:
    """Give every tensor of every slot its place."""
    cursors = {INPUT: 0, OUTPUT: 0}
    laid = []
    for workload in workloads:
        arguments = []
        for tensor in target.tensors:
            kind = INPUT if isinstance(tensor, Input) else OUTPUT
            dtype, shape = target.dtype(tensor, workload), target.shape(tensor, workload)
            if isinstance(tensor, Input) and tensor.shape is None:
                value = workload.axes[tensor.axis or tensor.name]
                arguments.append(Argument(tensor.name, SCALAR, dtype, (), value, 0, 0, 0))
                continue
            size = target.tensor_bytes(tensor, workload)
            step = -(-size // ALIGNMENT) * ALIGNMENT
            constant = isinstance(tensor, Input) and tensor.constant
            arguments.append(
                Argument(tensor.name, CONSTANT if constant else kind, dtype, shape, 0, cursors[kind],
                         0 if constant else step, size)
            )  # fmt: skip
            cursors[kind] += step * (1 if constant else slots[workload.name])
        laid.append(WorkloadLayout(workload, slots[workload.name], tuple(arguments)))
    return Layout(tuple(laid), cursors[INPUT], cursors[OUTPUT])


class Reader:
    """Calls `read(n)` until n bytes have come; raises EOFError when the other side closes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        data = b""
        while len(data) < size:
            chunk = os.read(self._fd, size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data
