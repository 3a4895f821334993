"""What is to be made fast: an operation, its workloads, and what counts as right."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field
from simpleeval import InvalidExpression, SimpleEval

from kernelevolve import syntax
from kernelevolve.errors import TargetError
from kernelevolve.schema.record import Record

DTYPE_BYTES: Mapping[str, int] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
"""Element types a tensor may have, by torch's names, with their size in bytes."""

Device = Literal["cpu", "gpu"]
Role = Literal["search", "held_out", "check"]
"""`search` workloads are timed and shown in briefs; `held_out` ones only certification sees;
`check` ones are small and awkward: compared for correctness, never timed."""


_FUNCTIONS = {"min": min, "max": max, "ceil": math.ceil}


def evaluate(expression: str | int, axes: Mapping[str, int]) -> int:
    """Integer value of an arithmetic expression over axis names. Raises `TargetError`."""
    if isinstance(expression, int):
        return expression
    try:
        return _evaluated(expression, tuple(axes.items()))
    except (InvalidExpression, SyntaxError, TypeError, ValueError, ArithmeticError) as error:
        raise TargetError(
            f"can't evaluate {expression!r}: {error}", remedy=f"use arithmetic over the axes {sorted(axes)}"
        ) from error


@lru_cache(maxsize=4096)
def _evaluated(expression: str, axes: tuple[tuple[str, int], ...]) -> int:
    """Kept: a search asks for the same few sizes and costs of a target with every evaluation."""
    with syntax.LOCK:
        return int(SimpleEval(names=dict(axes), functions=_FUNCTIONS).eval(expression))


class Input(Record):
    """One argument of `run`: a tensor (with `shape` and `dtype`) or a scalar (the value of `axis`)."""

    name: str
    shape: tuple[str | int, ...] | None = Field(
        None, description="axis names, integers or expressions; None for a scalar"
    )
    dtype: str = Field("int64", description="an element type, or the name of a type parameter")
    axis: str | None = Field(None, description="for a scalar: the axis whose value is passed (as int64)")
    constant: bool = Field(False, description="stays the same over many calls (weights); `prepare` may repack it")


class ExactRule(Record):
    """Every element equals the reference's in value; NaN matches NaN and nothing else."""

    kind: Literal["exact"] = "exact"


class ErrorRule(Record):
    """Error against a float64 reference, at most `slack` times that of an honest same-precision implementation.

    The honest error is the largest one that the reference makes, in the workload's own precision, within the
    same row (last axis); `floor_ulps` units in the last place of the row's largest value are always allowed.
    """

    kind: Literal["error"] = "error"
    slack: float = 3.0
    floor_ulps: float = 4.0


class IndexRule(Record):
    """Positions into the last axis of input `source`: in range, without repeats, and giving the output `values`.

    Which of several equal elements is named doesn't matter.
    """

    kind: Literal["index"] = "index"
    source: str
    values: str


NumericRule = Annotated[ExactRule | ErrorRule | IndexRule, Field(discriminator="kind")]


class Output(Record):
    """One result of `run`, allocated by the caller."""

    name: str
    shape: tuple[str | int, ...]
    dtype: str = Field(description="an element type, or the name of a type parameter")
    rule: NumericRule = ErrorRule()


class Workload(Record):
    """One point to check or time. The seed of its inputs stays with the judge."""

    name: str
    role: Role
    device: Device
    axes: dict[str, int]
    dtypes: dict[str, str] = Field(default_factory=dict, description="the element type of each type parameter")
    inputs: str = Field("default", description="which case of the target's input generator")


class Baseline(Record):
    """What a user would run instead: a function `name(*inputs, *outputs)` of the target's baselines.py."""

    name: str
    summary: str
    compiled: bool = Field(False, description="wrapped in torch.compile")
    devices: tuple[Device, ...] = ("cpu", "gpu")


class CostModel(Record):
    """What the operation can't do without, as expressions over the axes."""

    operations: str = Field(description="arithmetic operations (a multiply-add counts two)")
    compulsory_bytes: str | None = Field(
        None, description="bytes that must move; None means every input and output once"
    )
    precision: str = Field("T", description="element type or type parameter whose peak rate bounds the operations")


class Target(Record):
    """An operation to speed up, with everything that the judge needs to know about it."""

    name: str
    summary: str
    source: str = Field(description="where the operation and its shapes come from")
    axes: dict[str, str] = Field(description="axis name to what it means")
    dtypes: dict[str, tuple[str, ...]] = Field(description="type parameter to the element types it may take")
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    workloads: tuple[Workload, ...]
    baselines: tuple[Baseline, ...]
    cost: CostModel
    files: dict[str, str] = Field(description="reference.py, baselines.py and, where there is one, inputs.py")

    @property
    def tensors(self) -> tuple[Input | Output, ...]:
        """The arguments of `run`, in its order (scalars included)."""
        return (*self.inputs, *self.outputs)

    def workload(self, name: str) -> Workload:
        """The workload of that name. Raises `TargetError`."""
        for workload in self.workloads:
            if workload.name == name:
                return workload
        names = ", ".join(w.name for w in self.workloads)
        raise TargetError(f"target {self.name} has no workload {name!r}", remedy=f"choose one of: {names}")

    def select(self, device: Device, *roles: Role) -> tuple[Workload, ...]:
        """Workloads for a kind of device, in the order of the file."""
        return tuple(w for w in self.workloads if w.device == device and w.role in roles)

    def shape(self, tensor: Input | Output, workload: Workload) -> tuple[int, ...]:
        """Sizes of a tensor on a workload."""
        return tuple(evaluate(size, workload.axes) for size in tensor.shape or ())

    def dtype(self, tensor: Input | Output, workload: Workload) -> str:
        """Element type of a tensor on a workload."""
        return workload.dtypes.get(tensor.dtype, tensor.dtype)

    def tensor_bytes(self, tensor: Input | Output, workload: Workload) -> int:
        """Size of a tensor on a workload, in bytes (0 for a scalar)."""
        if tensor.shape is None:
            return 0
        return math.prod(self.shape(tensor, workload)) * DTYPE_BYTES[self.dtype(tensor, workload)]

    def compulsory_bytes(self, workload: Workload) -> int:
        """Bytes that must move on a workload."""
        if self.cost.compulsory_bytes is not None:
            sizes = {f"bytes_{p}": DTYPE_BYTES[d] for p, d in workload.dtypes.items()}
            return evaluate(self.cost.compulsory_bytes, {**workload.axes, **sizes})
        return sum(self.tensor_bytes(t, workload) for t in self.tensors)

    def operations(self, workload: Workload) -> int:
        """Arithmetic operations on a workload (a multiply-add counts two)."""
        return evaluate(self.cost.operations, workload.axes)
