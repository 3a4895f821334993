"""What the inputs of a call say about its shape: axis values, element types, and the outputs that follow."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kernelevolve import syntax
from kernelevolve.errors import TargetError, UsageError
from kernelevolve.schema import Target, evaluate


@dataclass(frozen=True)
class Point:
    """One point of the shape space, with the outputs that belong to it."""

    axes: dict[str, int]
    dtypes: dict[str, str]
    shapes: tuple[torch.Size, ...]
    """of the outputs"""
    output_dtypes: tuple[torch.dtype, ...]


@dataclass(frozen=True)
class _Step:
    """Where an axis can be read off: dimension `dimension` of an input is `scale * axis + offset` long."""

    axis: str
    position: int
    dimension: int | None
    """None where the input is the axis' value itself"""
    scale: int = 1
    offset: int = 0


class Signature:
    """Reads the axes and the type parameters of a target off the arguments of a call."""

    def __init__(self, target: Target) -> None:
        """Raises `UsageError` where some axis or type parameter doesn't follow from the inputs."""
        self._target = target
        self._steps = {step.axis: step for step in reversed(_steps(target))}
        for axis in target.axes:
            if axis not in self._steps:
                raise UsageError(
                    f"{target.name}: the axis {axis!r} doesn't follow from the shapes of the inputs",
                    remedy="give some input a dimension of that size, or pass it as a scalar",
                )
        for parameter in target.dtypes:
            if not any(i.dtype == parameter for i in target.inputs if i.shape is not None):
                raise UsageError(
                    f"{target.name}: no input is of the type {parameter!r}",
                    remedy="give the outputs types that the inputs have",
                )

    def point(self, args: Sequence[torch.Tensor | int]) -> Point | None:
        """The point of a call's arguments; None where they contradict the target's shapes or types."""
        axes = {axis: self._axis(step, args) for axis, step in self._steps.items()}
        dtypes = self._dtypes(args)
        known = {axis: value for axis, value in axes.items() if value is not None}
        if dtypes is None or len(known) < len(axes) or not self._agrees(args, known):
            return None
        outputs = self._target.outputs
        return Point(
            axes=known,
            dtypes=dtypes,
            shapes=tuple(torch.Size(evaluate(size, known) for size in output.shape) for output in outputs),
            output_dtypes=tuple(getattr(torch, dtypes.get(o.dtype, o.dtype)) for o in outputs),
        )

    def _axis(self, step: _Step, args: Sequence[torch.Tensor | int]) -> int | None:
        arg = args[step.position]
        if not isinstance(arg, torch.Tensor):
            return arg
        if step.dimension is None or step.dimension >= arg.ndim:
            return None
        return (arg.shape[step.dimension] - step.offset) // step.scale

    def _dtypes(self, args: Sequence[torch.Tensor | int]) -> dict[str, str] | None:
        found: dict[str, str] = {}
        for given, arg in zip(self._target.inputs, args, strict=True):
            if isinstance(arg, torch.Tensor):
                dtype = str(arg.dtype).removeprefix("torch.")
                free = given.dtype in self._target.dtypes
                if dtype != (found.setdefault(given.dtype, dtype) if free else given.dtype):
                    return None
        return found

    def _agrees(self, args: Sequence[torch.Tensor | int], axes: dict[str, int]) -> bool:
        """Whether every dimension of every input has the size that the axes give it."""
        if min(axes.values(), default=0) < 0:
            return False
        try:
            for given, arg in zip(self._target.inputs, args, strict=True):
                if isinstance(arg, torch.Tensor):
                    if tuple(arg.shape) != tuple(evaluate(size, axes) for size in given.shape or ()):
                        return False
                elif given.axis is not None and axes[given.axis] != arg:
                    return False
        except TargetError:  # for instance a division by an axis that is 0
            return False
        return True


def _steps(target: Target) -> list[_Step]:
    """Every place to read an axis off, the most direct ones first."""
    steps = []
    for position, given in enumerate(target.inputs):
        if given.axis is not None:
            steps.append(_Step(given.axis, position, None))
        for dimension, size in enumerate(given.shape or ()):
            linear = _linear(size)
            if linear is not None:
                axis, scale, offset = linear
                steps.append(_Step(axis, position, dimension, scale, offset))
    return sorted(steps, key=lambda step: (step.scale, abs(step.offset)))


def _linear(size: str | int) -> tuple[str, int, int] | None:
    """Axis, scale and offset of `axis`, `axis + c`, `c + axis`, `axis - c`, `c * axis` or `axis * c`."""
    if isinstance(size, int):
        return None
    match syntax.expression(size):
        case ast.Name(id=axis):
            return axis, 1, 0
        case ast.BinOp(left=ast.Name(id=axis), op=ast.Add(), right=ast.Constant(value=int(c))):
            return axis, 1, c
        case ast.BinOp(left=ast.Constant(value=int(c)), op=ast.Add(), right=ast.Name(id=axis)):
            return axis, 1, c
        case ast.BinOp(left=ast.Name(id=axis), op=ast.Sub(), right=ast.Constant(value=int(c))):
            return axis, 1, -c
        case ast.BinOp(left=ast.Name(id=axis), op=ast.Mult(), right=ast.Constant(value=int(c))) if c > 0:
            return axis, c, 0
        case ast.BinOp(left=ast.Constant(value=int(c)), op=ast.Mult(), right=ast.Name(id=axis)) if c > 0:
            return axis, c, 0
    return None
