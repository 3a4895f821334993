"""Fake tensors on a GPU that this torch has no support for: some of torch's own bindings want a device guard."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_READ = frozenset({
    torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.item, torch.Tensor.__bool__, torch.Tensor.__int__,
    torch.Tensor.__float__, torch.Tensor.__index__,
})  # fmt: skip
_IN_PLACE = frozenset({torch.Tensor.cuda, torch.Tensor.copy_, torch.Tensor.pin_memory})


class NoValuesError(Exception):
    """A launcher reads what is in a tensor. (Left alone, torch may take minutes to find out.)"""


class FakeGpu(TorchFunctionMode):
    """Says by shapes alone what indexing, copying and making tensors give."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """The call as it is, but for those that need a device."""
        named = dict(kwargs or {})
        if function in _READ:
            raise NoValuesError("a fake tensor has no values")
        if function is torch.Tensor.__getitem__:
            return index(args[0], args[1])
        if function is torch.Tensor.__setitem__:
            index(args[0], args[1])  # fails where the real one would; a fake tensor has nothing to set
            return None
        if function in _IN_PLACE:
            return args[0]
        if function is torch.Tensor.contiguous:
            return args[0] if args[0].is_contiguous() else args[0].clone(memory_format=torch.contiguous_format)
        if function is torch.Tensor.to:
            return _converted(function, args, named)
        if function in (torch.tensor, torch.as_tensor) and _is_gpu(named.get("device")):
            made = function(*args, **{**named, "device": "cpu"})
            return torch.empty(made.shape, dtype=made.dtype, device="cuda")
        return function(*args, **named)


def _converted(function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """`to` without the move to the device: the tensor is as good as there."""
    left = [a for a in args[1:] if not _is_gpu(a)]
    named = {name: value for name, value in named.items() if name != "non_blocking" and not _is_gpu(value)}
    return function(args[0], *left, **named) if left or named else args[0]


def _is_gpu(value: Any) -> bool:
    if isinstance(value, torch.device):
        return value.type == "cuda"
    return isinstance(value, str) and value.partition(":")[0] == "cuda"


def index(tensor: torch.Tensor, key: Any) -> torch.Tensor:
    """The view, or with index tensors the copy, that `tensor[key]` gives."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    place = next(i for i, part in enumerate(parts) if part is Ellipsis)
    used = sum(part is not None for part in parts) - 1
    parts[place : place + 1] = [slice(None)] * (tensor.ndim - used)
    indices: list[torch.Tensor | None] = []
    axis = 0
    for part in parts:
        if part is None:
            tensor = torch.unsqueeze(tensor, axis)
        elif isinstance(part, slice):
            tensor = torch.ops.aten.slice.Tensor(tensor, axis, part.start, part.stop, part.step or 1)
        elif isinstance(part, torch.Tensor):
            indices += [None] * (axis - len(indices)) + [part]
        else:
            tensor = torch.select(tensor, axis, part)
            axis -= 1
        axis += 1
    return torch.ops.aten.index.Tensor(tensor, indices) if indices else tensor
