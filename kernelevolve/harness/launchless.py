"""A candidate's calls without its kernels: what is right all the same was computed by somebody else."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import interpreter
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

_OPERATIONS = frozenset({
    "mm", "bmm", "addmm", "baddbmm", "addbmm", "addmv", "mv", "dot", "_grouped_mm", "_scaled_mm", "_scaled_grouped_mm",
    "linear", "_int_mm", "convolution", "topk", "sort", "kthvalue", "mode", "median", "unique_dim", "_unique2",
    "_softmax", "native_layer_norm", "_fused_rms_norm", "_embedding_bag", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention", "searchsorted", "bucketize",
})  # fmt: skip
"""Names in torch's operator library of what targets ask for. Making, copying and viewing tensors is not among them."""


class LibraryCallError(Exception):
    """A candidate calls an operation of torch's that does the work."""


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _OPERATIONS:
            raise LibraryCallError(f"run calls torch's {name}")
        return func(*args, **(kwargs or {}))


def _nothing(*_: object, **__: object) -> None:
    """Stands in for a launch."""


@contextmanager
def without_kernels() -> Iterator[None]:
    """While this holds, launches do nothing, and torch's own operations raise `LibraryCallError`."""
    with ExitStack() as stack:
        for launcher, method in ((JITFunction, "run"), (Autotuner, "run"), (interpreter.GridExecutor, "__call__")):
            stack.enter_context(patch.object(launcher, method, _nothing))
        stack.enter_context(_Watching())  # type: ignore[no-untyped-call]
        yield
