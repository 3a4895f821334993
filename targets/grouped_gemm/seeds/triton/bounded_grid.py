"""One program for each tile there could be: a group wastes less than one tile of rows, so the host knows a bound.

The grid covers rows // BLOCK_M + groups row tiles; a program finds its group by counting how many groups end at or
before its tile, and leaves at once if there is none. Nothing is repacked and nothing loops but the product itself:
the plain form, and what the others have to beat.
"""

import triton
import triton.language as tl

TUNABLES = {
    "BLOCK_M": [64, 32, 128, 16],
    "BLOCK_N": [128, 64, 256],
    "BLOCK_K": [64, 32],
    "NUM_WARPS": [8, 4],
    "NUM_STAGES": [3, 4, 2],
}


@triton.jit
def one_tile(a, offsets, b, out, groups, k, n, GROUPS: tl.constexpr,
             BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    row_tile = tl.program_id(0)  # the fast axis: neighbours share the weights of a group
    ids = tl.arange(0, GROUPS)
    begins = tl.load(offsets + ids, mask=ids < groups, other=0)
    ends = tl.load(offsets + 1 + ids, mask=ids < groups, other=0)
    upto = tl.cumsum(tl.cdiv(ends - begins, BLOCK_M).to(tl.int32), 0)
    group = tl.sum((upto <= row_tile).to(tl.int32), 0)
    if group >= groups:  # past the last tile every id counts, also those that only pad the vector
        return

    local = row_tile - tl.max(tl.where(upto <= row_tile, upto, 0), 0)
    begin = tl.load(offsets + group)
    size = (tl.load(offsets + group + 1) - begin).to(tl.int32)
    rows = local * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    # The tiles' offsets stay as they are, in 32 bits; what advances is one pointer to the start of each.
    a_part = a + begin * k
    b_part = b + group.to(tl.int64) * k * n
    a_tile = rows[:, None] * k + depth[None, :]
    b_tile = depth[:, None] * n + cols[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        # Both sides need the mask over k: zero times what lies behind the other could be NaN.
        x = tl.load(a_part + a_tile, mask=(rows[:, None] < size) & (depth[None, :] < k - start), other=0.0)
        w = tl.load(b_part + b_tile, mask=(depth[:, None] < k - start) & (cols[None, :] < n), other=0.0)
        acc = tl.dot(x, w, acc, input_precision="ieee")
        a_part += BLOCK_K
        b_part += BLOCK_K * n
    inside = (rows[:, None] < size) & (cols[None, :] < n)
    tl.store(out + begin * n + rows[:, None] * n + cols[None, :], acc.to(out.dtype.element_ty), mask=inside)


def run(a, offsets, b, out):
    rows, k = a.shape
    groups, _, n = b.shape
    block_k = 2 * BLOCK_K // a.element_size()  # as many bytes in any type: shared memory is what limits stages
    grid = (rows // BLOCK_M + min(groups, rows), triton.cdiv(n, BLOCK_N))
    one_tile[grid](
        a, offsets, b, out, groups, k, n, triton.next_power_of_2(groups),
        BLOCK_M, BLOCK_N, block_k, num_warps=NUM_WARPS, num_stages=NUM_STAGES,
    )  # fmt: skip
