"""A program belongs to a group from the start and keeps its weights: rows stream past a block that is loaded once.

No search, no sum over groups: a program reads the two offsets of its group and takes every SPLIT-th tile of its
rows. Where k fits one block (the small experts that this operation is made of), the weights are read once by a
program, not once a tile. Longer k goes through the weights block by block as usual.
"""

import torch
import triton
import triton.language as tl

TUNABLES = {
    "TILES_EACH": [2, 1, 4, 8],
    "BLOCK_M": [64, 32, 128, 16],
    "BLOCK_N": [64, 128, 256],
    "BLOCK_K": [64, 128, 32],
    "KEEP_K": [128, 256, 64, 512],
    "NUM_WARPS": [4, 8],
    "NUM_STAGES": [3, 2, 4],
}

WIDTH = 64  # multiple to which the weights' rows are padded, for wide, aligned loads


def prepare(b):
    """The weights with rows padded by zeros to a multiple of WIDTH."""
    return torch.nn.functional.pad(b, (0, -b.shape[2] % WIDTH))


@triton.jit
def one_group(a, offsets, b, out, k, n, width_b, KEEP: tl.constexpr,
              BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """Every SPLIT-th row tile of a group, SPLIT being the size of the grid's fast axis."""
    group = tl.program_id(2).to(tl.int64)
    begin = tl.load(offsets + group)
    size = (tl.load(offsets + group + 1) - begin).to(tl.int32)
    first = tl.program_id(0) * BLOCK_M
    if first >= size:  # a program without rows doesn't pay for weights
        return

    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    a += begin * k
    out += begin * n
    b_tile = b + group * k * width_b + depth[:, None] * width_b + cols[None, :]
    kept = tl.load(b_tile, mask=(depth[:, None] < k) & (cols[None, :] < width_b), other=0.0)

    for start in range(first, size, tl.num_programs(0) * BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        a_tile = a + rows[:, None] * k + depth[None, :]
        x = tl.load(a_tile, mask=(rows[:, None] < size) & (depth[None, :] < k), other=0.0)
        acc = tl.dot(x, kept, input_precision="ieee")
        if not KEEP:
            for at in range(BLOCK_K, k, BLOCK_K):
                left = k - at
                x = tl.load(a_tile + at, mask=(rows[:, None] < size) & (depth[None, :] < left), other=0.0)
                w_mask = (depth[:, None] < left) & (cols[None, :] < width_b)
                w = tl.load(b_tile + at * width_b, mask=w_mask, other=0.0)
                acc = tl.dot(x, w, acc, input_precision="ieee")
        inside = (rows[:, None] < size) & (cols[None, :] < n)
        tl.store(out + rows[:, None] * n + cols[None, :], acc.to(out.dtype.element_ty), mask=inside)


def run(a, offsets, b, packed, out):
    rows, k = a.shape
    groups, _, n = b.shape
    width = 2 * BLOCK_K // a.element_size()  # as many bytes in any type: shared memory is what limits blocks
    keep = max(16, triton.next_power_of_2(k))
    kept = keep * a.element_size() <= 2 * KEEP_K
    # Enough programs for groups twice the average; larger ones take further turns.
    split = triton.cdiv(2 * rows, groups * BLOCK_M * TILES_EACH)
    one_group[(split, triton.cdiv(n, BLOCK_N), groups)](
        a, offsets, packed, out, k, n, packed.shape[2], kept,
        BLOCK_M, BLOCK_N, keep if kept else width, num_warps=NUM_WARPS, num_stages=NUM_STAGES,
    )  # fmt: skip
