"""What Triton's interpreter gets wrong, is slow at, or needs a driver for, put right in this process.

Tried with Triton 3.4, 3.5, 3.6 and 3.9. `TRITON_INTERPRET=1` has to be in the environment before Triton is imported.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch.overrides import TorchFunctionMode
from triton._C.libtriton import ir
from triton.runtime import interpreter
from triton.runtime.autotuner import Autotuner

from kernelevolve.harness.triton_quick import quicken

_BUILDER = interpreter.InterpreterBuilder


class OutOfBoundsError(Exception):
    """A kernel reaches outside of every tensor it was given."""


def mend() -> None:
    """Patch the interpreter, for the rest of the process."""
    _mend_conversions()
    _mend_dot()
    _mend_numbers()
    _mend_reduce()
    _mend_autotune()
    # All tensors are in this process: there is nothing to copy back, and the inputs' pages are read-only.
    interpreter.GridExecutor._restore_args_dev = lambda *_: None
    _guard_memory()
    quicken()


def _mend_conversions() -> None:
    """Infinities, NaN and subnormals of narrow types are read wrong, and bfloat16 is rounded towards zero: torch does
    both as devices do. What becomes 8 bits wide stays the interpreter's, since torch doesn't saturate."""
    convert = interpreter._convert_float
    kinds = {
        "fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16,
        "fp8e5": torch.float8_e5m2, "fp8e4nv": torch.float8_e4m3fn, "fp8e5b16": torch.float8_e5m2fnuz,
        "fp8e4b8": torch.float8_e4m3fnuz,
    }  # fmt: skip
    signed = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}

    def converted(data: Any, source: Any, target: Any, rounding: Any) -> Any:
        old, new = kinds.get(source.name), kinds.get(target.name)
        if old is None or new is None or new.itemsize == 1 or rounding not in (None, ir.ROUNDING_MODE.RTNE):
            return convert(data, source, target, rounding)
        bits = np.ascontiguousarray(data).reshape(-1).view(signed[old.itemsize])
        values = torch.from_numpy(bits).view(old).to(new)
        integer = torch.from_numpy(np.zeros(0, signed[new.itemsize])).dtype
        return values.view(integer).numpy().reshape(np.shape(data))

    interpreter._convert_float = converted


def _mend_dot() -> None:
    """numpy has no bfloat16: a dot would multiply bit patterns. float16 is widened too, since BLAS knows float32."""
    dot = _BUILDER.create_dot

    def wide(handle: Any) -> Any:
        if handle.dtype.scalar == tl.bfloat16:
            data = interpreter._convert_float(handle.data, tl.bfloat16, tl.float32, None).view(np.float32)
            return interpreter.TensorHandle(data, tl.float32)
        if handle.dtype.scalar == tl.float16:
            return interpreter.TensorHandle(handle.data.astype(np.float32), tl.float32)
        return handle

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        return dot(self, wide(a), wide(b), d, *rest)

    _BUILDER.create_dot = create_dot


def _mend_numbers() -> None:
    """Before Triton 3.9 a loop's bound is an array of one element, which numpy 2.4 doesn't take for a number."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, *rest: Any) -> None:
        patch(tensor, *rest)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    interpreter._patch_lang_tensor = patched


def _mend_reduce() -> None:
    """The reductions of tl.sort and tl.topk, which the interpreter does element by element."""
    fast = {"_xor_combine": np.bitwise_xor, "_or_combine": np.bitwise_or, "_and_combine": np.bitwise_and}
    slow = interpreter.ReduceOps.apply_impl

    def apply_impl(self: Any, given: Any) -> Any:
        combine = fast.get(getattr(self.combine_fn, "__name__", ""))
        if combine is None or self.axis is None:
            return slow(self, given)
        data = combine.reduce(given[0].handle.data, axis=self.axis, keepdims=self.keep_dims)
        return self.to_tensor(data, given[0].dtype)

    interpreter.ReduceOps.apply_impl = apply_impl


def _mend_autotune() -> None:
    """There is nothing to time: a tuner takes the first configuration that its pruning leaves."""

    def run(self: Any, *args: Any, **keywords: Any) -> Any:
        self.nargs = dict(zip(self.arg_names, args, strict=False))
        config = self.prune_configs(keywords)[0] if len(self.configs) > 1 else self.configs[0]
        if config.pre_hook is not None:
            config.pre_hook({**self.nargs, **keywords, **config.all_kwargs()})
        return self.fn.run(*args, **keywords, **config.all_kwargs())

    Autotuner.run = run


def _guard_memory() -> None:
    """Loads and stores outside of every tensor of the launch raise: left alone, they would corrupt the heap."""
    guard = _Guard()
    call, load, store = interpreter.GridExecutor.__call__, _BUILDER.create_masked_load, _BUILDER.create_masked_store
    rmw, cas = _BUILDER.create_atomic_rmw, _BUILDER.create_atomic_cas

    def launched(self: Any, *args: Any, **keywords: Any) -> Any:
        guard.allow((*args, *keywords.values()))
        return call(self, *args, **keywords)

    def guarded_load(self: Any, pointers: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        guard.check(pointers, mask, "loads")
        return load(self, pointers, mask, *rest, **named)

    def guarded_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        guard.check(pointers, mask, "stores")
        return store(self, pointers, value, mask, *rest, **named)

    def guarded_rmw(self: Any, operation: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        guard.check(pointers, mask, "has an atomic operation")
        return rmw(self, operation, pointers, value, mask, *rest)

    def guarded_cas(self: Any, pointers: Any, *rest: Any) -> Any:
        guard.check(pointers, None, "has an atomic operation")
        return cas(self, pointers, *rest)

    interpreter.GridExecutor.__call__ = launched
    _BUILDER.create_masked_load, _BUILDER.create_masked_store = guarded_load, guarded_store
    _BUILDER.create_atomic_rmw, _BUILDER.create_atomic_cas = guarded_rmw, guarded_cas


class _Guard:
    """The memory that the kernel at work may touch."""

    def __init__(self) -> None:
        self._starts = np.zeros(0, np.uint64)
        self._ends = np.zeros(0, np.uint64)

    def allow(self, arguments: Iterable[Any]) -> None:
        """From now on the storages of these tensors, and nothing else."""
        storages = {t.untyped_storage() for t in _tensors(arguments)}
        spans = sorted({(s.data_ptr(), s.data_ptr() + s.nbytes()) for s in storages if s.nbytes()})
        self._starts = np.array([start for start, _ in spans], np.uint64)
        self._ends = np.array([end for _, end in spans], np.uint64)

    def check(self, pointers: Any, mask: Any, what: str) -> None:
        """Raises `OutOfBoundsError` where an unmasked pointer lies outside."""
        data = pointers.data if mask is None else pointers.data[np.broadcast_to(mask.data, pointers.data.shape)]
        address = data.ravel().astype(np.uint64)
        if address.size == 0:
            return
        size = np.uint64(max(1, pointers.get_element_ty().primitive_bitwidth // 8))
        nearest = np.searchsorted(self._starts, address, side="right") - 1
        outside = nearest < 0
        outside[~outside] = address[~outside] + size > self._ends[nearest[~outside]]
        if outside.any():
            count = int(outside.sum())
            raise OutOfBoundsError(f"the kernel {what} outside of its tensors, at {count} of {address.size} places")


def _tensors(arguments: Iterable[Any]) -> Iterator[torch.Tensor]:
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            yield argument
        elif isinstance(argument, tuple | list):
            yield from _tensors(argument)
        elif isinstance(base := getattr(argument, "base", None), torch.Tensor):  # descriptors, reinterpreted tensors
            yield base


class OnCpu(TorchFunctionMode):
    """Tensors that a launcher asks for on a GPU are made on the CPU, where the interpreter works."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """The same call, without the word "cuda"."""
        if function is torch.Tensor.cuda:
            return args[0]
        named = {name: _here(value) for name, value in (kwargs or {}).items()}
        return function(*map(_here, args), **named)


def _here(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type == "cuda" else value
    return "cpu" if isinstance(value, str) and value.partition(":")[0] == "cuda" else value
