"""The first compilation of a process costs most of a second more than the next: a fork server makes it beforehand."""

import os
import tempfile
from typing import Any
from unittest.mock import patch

import torch
import triton
import triton.language as tl
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from kernelevolve.hardware.devices import Gpu
from kernelevolve.harness.triton_device import pretending


@triton.jit  # type: ignore[untyped-decorator]
def _product(a, b, c, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """What most candidates do: masked loads, a loop, a matrix product, a reduction."""
    rows = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, n, BLOCK):
        at = start + rows
        x = tl.load(a + rows[:, None] * n + at[None, :], mask=at[None, :] < n, other=0.0)
        y = tl.load(b + at[:, None] * BLOCK + rows[None, :], mask=at[:, None] < n, other=0.0)
        total = tl.dot(x, y, total)
    total -= tl.max(total, 1)[:, None]
    tl.store(c + rows[:, None] * BLOCK + rows[None, :], total.to(tl.bfloat16))


def compile_once(gpu: Gpu) -> Any:
    """Compile that kernel for a device; nothing is left of it but what the compiler keeps in memory."""
    aligned = patch.object(FakeTensor, "data_ptr", lambda _: 0)
    with (
        tempfile.TemporaryDirectory(prefix="kernelevolve-warm-") as folder,
        patch.dict(os.environ, TRITON_CACHE_DIR=folder), aligned, pretending(gpu), FakeTensorMode(),
    ):  # fmt: skip
        tensors = [torch.empty((64, 64), dtype=torch.bfloat16, device="cuda") for _ in range(3)]
        return _product.run(*tensors, 64, 32, grid=(1,), warmup=True, num_warps=4, enable_fp_fusion=True)
