"""The path of a call that hits, written out for one signature.

Looping over inputs of unknown number and kind would cost more than a small kernel takes, so `compile_call`
writes the function out, as `dataclasses` and `namedtuple` do. For inputs `x`, `k` and outputs `values`,
`indices` on a CPU it reads, shortened::

    def __call__(_self, x, k, *, out=None):
        _plan = _problem = None
        try:
            _plan = _self._find((type(x), x.shape, x.dtype, k))
            if (type(_plan) is _Plan and x.is_contiguous() and x.is_cpu and not x.data_ptr() & 63
                    and type(k) is int and not (_grad_enabled() and x.requires_grad)):
                if out is None:
                    _t0, _t1, = _plan.templates
                    _y0, _y1, = _empty_like(_t0), _empty_like(_t1),
                    _plan.run(x, k, _y0, _y1)
                    _self._hits += 1
                    return _y0, _y1
                ...
        except _RAISED as _error:
            _problem = _error
        return _self._slow((x, k), out, _plan, _problem)

Whatever isn't a plain hit goes to `_slow`, which decides it with time to spare.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

import torch
from torch.autograd.graph import increment_version

from kernelevolve.errors import UsageError
from kernelevolve.languages.base import Kernel
from kernelevolve.runtime.packing import Packs
from kernelevolve.schema import Device, Input, Target

ALIGNMENT = 64
"""Bytes: what the harness gives every tensor, and torch's own allocator too. A kernel may rely on it."""

PLAIN = (torch.Tensor, torch.nn.Parameter)
"""Types whose elements lie where they seem to; a subclass may mean something else by its elements."""

RAISED = (ArithmeticError, AssertionError, AttributeError, BufferError, LookupError, MemoryError, OSError,
          RuntimeError, TypeError, ValueError)  # fmt: skip
"""What a kernel may throw (tvm-ffi turns C++ exceptions into these)."""

_ON_DEVICE = {"cpu": "{0}.is_cpu", "gpu": "{0}.get_device() == 0 == _current_device()"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How to answer one combination of shapes, element types and scalars."""

    run: Kernel
    packs: Packs | None
    form: int
    """of the constants, for `packs`"""
    templates: tuple[torch.Tensor, ...]
    """shaped like the outputs, without memory of their own"""
    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    single: bool
    """whether some input has one element (it may then be a contiguous view with a pending negation)"""


def compile_call(target: Target, device: Device) -> Callable[..., Any]:
    """The `__call__` of an operation with these inputs and outputs. Raises `UsageError` for a bad name."""
    for name in (given.name for given in target.inputs):
        if not name.isidentifier() or iskeyword(name) or name.startswith("_") or name == "out":
            raise UsageError(
                f"{target.name}: an input can't be called {name!r}",
                remedy="name it as a Python argument, without a leading underscore, and not out",
            )
    names: dict[str, Any] = {
        "_grad_enabled": torch.is_grad_enabled,
        "_empty_like": torch.empty_like,
        "_increment_version": increment_version,
        "_current_device": torch.cuda.current_device,
        "_Tensor": torch.Tensor,
        "_Plan": Plan,
        "_RAISED": RAISED,
    }
    source = "\n".join(_lines(target, device))
    exec(compile(source, f"<call of {target.name}>", "exec"), names)
    call: Callable[..., Any] = names["__call__"]
    return call


def key(inputs: Sequence[Input], args: Sequence[Any]) -> tuple[object, ...]:
    """What a call's plan is kept under: the tuple that `compile_call` writes out."""
    parts: list[object] = []
    for given, arg in zip(inputs, args, strict=True):
        parts += [arg] if given.shape is None else [type(arg), arg.shape, arg.dtype]
    return tuple(parts)


def _lines(target: Target, device: Device) -> list[str]:
    tensors = [i.name for i in target.inputs if i.shape is not None]
    scalars = [i.name for i in target.inputs if i.shape is None]
    arguments = ", ".join(i.name for i in target.inputs)
    key_parts = [f"type({i.name}), {i.name}.shape, {i.name}.dtype" if i.shape is not None else i.name
                 for i in target.inputs]  # fmt: skip
    count = range(len(target.outputs))
    outputs = "".join(f"_y{n}, " for n in count)
    conditions = [
        "type(_plan) is _Plan",
        *(_usable(name, device) for name in tensors),
        *(f"type({name}) is int" for name in scalars),
        f"not ((_grad := _grad_enabled()) and ({_any(f'{name}.requires_grad' for name in tensors)}))",
        f"not (_plan.single and ({_any(f'{name}.is_neg()' for name in tensors)}))",
    ]
    fits = [
        *(f"type(_y{n}) is _Tensor and _y{n}.shape == _s{n} and _y{n}.dtype is _d{n}" for n in count),
        *(_usable(f"_y{n}", device) for n in count),
        f"not (_grad and ({_any(f'_y{n}.requires_grad' for n in count)}))",
    ]
    single = len(target.outputs) == 1
    return [
        f"def __call__(_self, {arguments}, *, out=None):",
        "    _plan = _problem = None",
        "    try:",
        f"        _plan = _self._find(({', '.join(key_parts)},))",
        f"        if {' and '.join(conditions)}:",
        "            if out is None:",
        f"                {''.join(f'_t{n}, ' for n in count)}= _plan.templates",
        *(f"                _y{n} = _empty_like(_t{n})" for n in count),
        *(f"                {line}" for line in _run(target, outputs)),
        f"                return {'_y0' if single else outputs}",
        f"            {outputs}= {'(out,) if type(out) is _Tensor else out' if single else 'out'}",
        f"            {''.join(f'_s{n}, ' for n in count)}= _plan.shapes",
        f"            {''.join(f'_d{n}, ' for n in count)}= _plan.dtypes",
        f"            if {' and '.join(fits)}:",
        *(f"                {line}" for line in _run(target, outputs)),
        f"                _increment_version(({outputs}))",
        "                return out",
        "    except _RAISED as _error:",
        "        _problem = _error",
        f"    return _self._slow(({arguments},), out, _plan, _problem)",
    ]


def _run(target: Target, outputs: str) -> list[str]:
    """The call of the kernel; where constants were packed, with the pack that belongs to them."""
    arguments = ", ".join(i.name for i in target.inputs)
    constants = [i.name for i in target.inputs if i.constant]
    count = "_self._hits += 1"
    if not constants:
        return [f"_plan.run({arguments}, {outputs})", count]
    place = ", ".join(f"{name}.untyped_storage()._cdata, {name}.data_ptr(), {name}._version" for name in constants)
    return [
        "if (_packs := _plan.packs) is None:",
        f"    _plan.run({arguments}, {outputs})",
        "else:",
        f"    _packed = _packs.find((_plan.form, {place},))",
        "    if _packed is None:",
        f"        _packed = _packs.get(_plan.form, ({', '.join(constants)},))",
        f"    _plan.run({arguments}, _packed, {outputs})",
        count,
    ]


def _usable(name: str, device: Device) -> str:
    here = _ON_DEVICE[device].format(name)
    return f"{name}.is_contiguous() and {here} and not {name}.data_ptr() & {ALIGNMENT - 1}"


def _any(conditions: Any) -> str:
    return " or ".join(conditions) or "False"
