"""What is right: a target's inputs, its reference and how far from it a candidate may be."""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from kernelevolve.errors import TargetError
from kernelevolve.schema import ErrorRule, Target, Workload

Tensors = dict[str, torch.Tensor]

LUCK = 4.0
"""How much further from the truth than in a row at hand an honest implementation may typically be."""


def torch_dtype(name: str) -> torch.dtype:
    """Torch's element type of that name."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def import_target_file(target: Target, name: str, folder: Path) -> ModuleType:
    """Import one of the target's own files (trusted code) from a folder of the judge's."""
    path = folder / name
    if not path.exists():
        path.write_text(target.files[name])
    label = f"kernelevolve_target_{target.name}_{target.digest[:8]}_{Path(name).stem}"
    spec = importlib.util.spec_from_file_location(label, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[label] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError, NameError, AttributeError) as error:
        raise TargetError(f"targets/{target.name}/{name}: {error}", remedy="mend the file") from error
    return module


@dataclass(frozen=True)
class Truth:
    """The right answer to one set of inputs."""

    expected: torch.Tensor
    """float64 for floating outputs, else the output's own type"""
    allowed: torch.Tensor | None
    """largest error allowed, broadcastable to `expected`; None where the rule wants equality"""


class Oracle:
    """Makes inputs and knows the answers. Lives in the judge only."""

    def __init__(self, target: Target, folder: Path, seed: int, device: str = "cpu") -> None:
        self._target = target
        self._reference = import_target_file(target, "reference.py", folder).reference
        self._make = import_target_file(target, "inputs.py", folder).make if "inputs.py" in target.files else None
        self._generator = torch.Generator(device).manual_seed(seed)

    def inputs(self, workload: Workload) -> Tensors:
        """One random set of tensor inputs, by name. Raises `TargetError` where the target's own code is wrong."""
        made: Tensors = {}
        if self._make is not None:
            made = dict(self._make(workload.inputs, dict(workload.axes), dict(workload.dtypes), self._generator))
        for tensor in self._target.inputs:
            if tensor.shape is None:
                continue
            shape, dtype = (
                self._target.shape(tensor, workload),
                torch_dtype(self._target.dtype(tensor, workload)),
            )
            if tensor.name not in made:
                made[tensor.name] = torch.randn(shape, generator=self._generator, device=self._generator.device).to(
                    dtype
                )
            found = made[tensor.name]
            if tuple(found.shape) != shape or found.dtype != dtype:
                raise TargetError(
                    f"targets/{self._target.name}/inputs.py: {tensor.name} on {workload.name} is "
                    f"{found.dtype} {tuple(found.shape)}, declared {dtype} {shape}",
                    remedy="make what target.toml declares",
                )
        return made

    def truths(self, inputs: Mapping[str, torch.Tensor], workload: Workload) -> tuple[Truth, ...]:
        """The right outputs, in the target's order, with the error an honest implementation makes as yardstick."""
        outputs = self._target.outputs
        exact = self._call(inputs, workload, torch.float64)
        inexact = any(isinstance(output.rule, ErrorRule) for output in outputs)
        honest = self._call(inputs, workload, None) if inexact else exact
        truths = []
        for output, right, plain in zip(outputs, exact, honest, strict=True):
            dtype = torch_dtype(self._target.dtype(output, workload))
            if isinstance(output.rule, ErrorRule):
                truths.append(Truth(right, allowed_error(right, plain, dtype, output.rule)))
            else:
                truths.append(Truth(right.to(dtype), None))
        return tuple(truths)

    def _call(
        self, inputs: Mapping[str, torch.Tensor], workload: Workload, precision: torch.dtype | None
    ) -> tuple[torch.Tensor, ...]:
        arguments: list[torch.Tensor | int] = []
        for tensor in self._target.inputs:
            if tensor.shape is None:
                arguments.append(workload.axes[tensor.axis or tensor.name])
                continue
            value = inputs[tensor.name]
            if value.is_floating_point() and not value.is_cpu:
                # A device sorts by radix, which puts NaN of negative sign last: to a reference all NaN are alike.
                value = torch.where(value.isnan(), torch.nan, value)
            arguments.append(value.to(precision) if precision and value.is_floating_point() else value)
        try:
            result = self._reference(*arguments)
        except (ArithmeticError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError) as error:
            raise TargetError(
                f"targets/{self._target.name}/reference.py on {workload.name}: {type(error).__name__}: {error}",
                remedy="mend the reference; kernelevolve targets check runs it",
            ) from error
        results = tuple(result) if isinstance(result, tuple | list) else (result,)
        if len(results) != len(self._target.outputs):
            raise TargetError(
                f"targets/{self._target.name}/reference.py returns {len(results)} values",
                remedy=f"return the {len(self._target.outputs)} outputs that target.toml declares, in its order",
            )
        return results


def allowed_error(right: torch.Tensor, honest: torch.Tensor, dtype: torch.dtype, rule: ErrorRule) -> torch.Tensor:
    """Largest error allowed in each row (last axis), shape (..., 1).

    `slack` times what an honest implementation in the same precision gets wrong in that row, and never less than
    `floor_ulps` units in the last place of the row's largest value. The yardstick is the rule of the in-kernel
    broadcast work (error at most the vendor library's own), with a slack for another order of summation. Where the
    honest one was lucky in a row, what it gets wrong in a typical one of that size counts, up to `LUCK` times as much:
    a thousand calls hold a row in which it is, and that is no fault of the kernel's.
    """
    if right.ndim == 0:
        return allowed_error(right.reshape(1), honest.reshape(1), dtype, rule).reshape(())
    if right.shape[-1] == 0:
        return torch.zeros_like(right)
    error = (honest.to(torch.float64) - right).abs()
    finite = torch.where(torch.isfinite(right), right.abs(), 0.0)
    worst = torch.nan_to_num(error, nan=0.0, posinf=0.0).amax(-1, keepdim=True)
    size = finite.amax(-1, keepdim=True)
    relative = (worst / size)[size > 0]
    typical = size * relative.median() if relative.numel() else worst
    yardstick = torch.maximum(worst, torch.minimum(typical, LUCK * worst))
    ulp = torch.finfo(dtype).eps * size
    return torch.maximum(rule.slack * yardstick, rule.floor_ulps * ulp).clamp_min(torch.finfo(dtype).tiny)
