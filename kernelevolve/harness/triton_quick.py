"""Makes Triton's interpreter quicker without changing what it computes: it works out types and shapes again for
every operation, which takes several times as long as the arithmetic.

Tried with Triton 3.4 to 3.9. Nothing here is a mend: whatever isn't recognised takes the interpreter's own way.
"""

import builtins
import inspect
from typing import Any

from triton.language import core
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

_MOST_KEPT = 1024
"""Entries of a table, after which it is emptied."""
_LARGEST_KEPT = 1 << 16
"""Bytes of a block."""


def quicken() -> None:
    """Patch the interpreter, for the rest of the process."""
    _keep_block_types()
    _keep_shapes()
    _keep_element_types()
    _pass_equal_types()
    _find_builtins_once()


def _keep_block_types() -> None:
    """A block type is made once for each element type and shape."""
    made: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {}
    slow = core.block_type.__init__

    def init(self: Any, element_ty: Any, shape: Any) -> None:
        key = None
        if type(element_ty) is core.dtype:
            sizes = builtins.tuple(shape)
            if all(type(size) is int for size in sizes):
                key = (element_ty.name, sizes)
                if (known := made.get(key)) is not None:
                    self.__dict__.update(known)
                    return
        slow(self, element_ty, shape)
        if key is not None:
            _bounded(made)[key] = dict(self.__dict__)

    core.block_type.__init__ = init


def _keep_shapes() -> None:
    """The shape of a tensor, as constants, is made once for each shape."""
    made: dict[tuple[int, ...], tuple[Any, Any]] = {}
    slow = core.tensor.__init__

    def init(self: Any, handle: Any, type: Any) -> None:  # noqa: A002 - called by name
        key = builtins.tuple(type.shape) if type.is_block() else ()
        known = made.get(key)
        if known is None:
            slow(self, handle, type)
            _bounded(made)[key] = self.shape, self.numel
            return
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = known

    core.tensor.__init__ = init


def _keep_element_types() -> None:
    """numpy's name for an element type is looked up, not searched for."""
    found: dict[str, Any] = {}
    slow = interpreter._get_np_dtype

    def get(given: Any) -> Any:
        if type(given) is not core.dtype:
            return slow(given)
        if (known := found.get(given.name)) is None:
            known = found[given.name] = slow(given)
        return known

    interpreter._get_np_dtype = get


def _pass_equal_types() -> None:
    """Two operands of one element type need no conversion, and a whole number becomes the same block every time."""
    blocks: dict[tuple[Any, ...], Any] = {}
    slow = TritonSemantic.binary_op_type_checking_impl
    spread = TritonSemantic.broadcast_impl_value

    def check(self: Any, lhs: Any, rhs: Any, *args: Any, **keywords: Any) -> Any:
        if type(lhs) is not core.tensor or type(lhs.dtype) is not core.dtype:
            return slow(self, lhs, rhs, *args, **keywords)
        if type(rhs) is core.tensor and not args and not keywords:
            if lhs.dtype == rhs.dtype and not lhs.dtype.is_fp8():
                return self.broadcast_impl_value(lhs, rhs)
        elif type(rhs) is int:
            key = (rhs, lhs.dtype.name, _shape(lhs), args, *keywords.items())
            if (known := blocks.get(key)) is not None:
                return lhs, known
            left, right = slow(self, lhs, rhs, *args, **keywords)
            if left is lhs and right.handle.data.nbytes <= _LARGEST_KEPT:
                right.handle.data.flags.writeable = False
                _bounded(blocks)[key] = right
            return left, right
        return slow(self, lhs, rhs, *args, **keywords)

    def broadcast(self: Any, lhs: Any, rhs: Any) -> Any:
        return (lhs, rhs) if _shape(lhs) == _shape(rhs) else spread(self, lhs, rhs)

    TritonSemantic.binary_op_type_checking_impl = check
    TritonSemantic.broadcast_impl_value = broadcast


def _find_builtins_once() -> None:
    """Every call of a function searches Triton's modules for what to patch: the names are always the same."""
    names: dict[int, list[str]] = {}

    def patch(module: Any, *rest: Any) -> None:
        found = names.get(id(module))
        if found is None:
            found = names[id(module)] = [n for n, m in inspect.getmembers(module) if core.is_builtin(m)]
        for name in found:
            if core.is_builtin(member := getattr(module, name)):
                interpreter._patch_attr(module, name, member, *rest)

    interpreter._patch_builtin = patch


def _shape(tensor: Any) -> tuple[int, ...]:
    return builtins.tuple(tensor.type.shape) if tensor.type.is_block() else ()


def _bounded(table: dict[Any, Any]) -> dict[Any, Any]:
    if len(table) >= _MOST_KEPT:
        table.clear()
    return table
