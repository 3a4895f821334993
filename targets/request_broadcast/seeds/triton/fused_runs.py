"""One kernel without scratch: a program computes a tile for a run of candidates and keeps the user's part in registers.

The user's part is computed anew only where the user changes. In a serving batch, sorted by user, that is about once
a run; in any order it is still right, at the cost of the copied form. Runs of one candidate are the plain fusion:
candidate and user features multiplied as one long row, without copying the user.
"""

import torch
import triton
import triton.language as tl

TUNABLES = {
    "RUN": [8, 4, 16, 1],
    "BLOCK_M": [64, 128],
    "BLOCK_N": [128, 256, 64],
    "BLOCK_K": [64, 32],
    "NUM_WARPS": [8, 4],
    "NUM_STAGES": [3, 4, 2],
}

ROWS, DEPTH = 128, 64  # multiples to which the weights are padded: at least as large as any block


def prepare(w_cand, w_user):
    """Both weights beside each other, padded with zeros: wide, aligned loads without masks."""
    pad = torch.nn.functional.pad
    return torch.cat([pad(w, (0, -w.shape[1] % DEPTH, 0, -w.shape[0] % ROWS)) for w in (w_cand, w_user)], dim=1)


@triton.jit
def product(weights, embedding, rows, cols, k, n, stride, BLOCK_K: tl.constexpr):
    """The tile at rows x cols of weights @ embedding [k, n], in float32."""
    depth = tl.arange(0, BLOCK_K)
    w_tile = weights + rows[:, None] * stride + depth[None, :]
    e_tile = embedding + depth[:, None] * n + cols[None, :]
    acc = tl.zeros((rows.shape[0], cols.shape[0]), tl.float32)
    for start in range(0, k, BLOCK_K):
        # Past the last feature the weights are zero, but zero times what lies behind could be NaN: mask this side.
        e = tl.load(e_tile, mask=(depth[:, None] < k - start) & (cols[None, :] < n), other=0.0)
        acc = tl.dot(tl.load(w_tile), e, acc, input_precision="ieee")
        w_tile += BLOCK_K
        e_tile += BLOCK_K * n
    return acc


@triton.jit
def rank_run(e_cand, e_user, user_of, weights, out, candidates, m, k_cand, k_user, n, stride, user_column,
             RUN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """One tile of the output for RUN candidates that follow each other."""
    # The tiles of a run are neighbours, so that its embeddings are shared in the L2 cache while they are fresh.
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile = tl.program_id(0)
    rows = tile % tiles_m * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tile // tiles_m % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    place = rows[:, None] * n + cols[None, :]
    inside = (rows[:, None] < m) & (cols[None, :] < n)

    first = tile // (tiles_m * tiles_n) * RUN
    e_cand += first.to(tl.int64) * k_cand * n
    out += first.to(tl.int64) * m * n
    known = tl.full((), -1, tl.int64)
    user_part = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for item in range(first, tl.minimum(first + RUN, candidates)):
        user = tl.load(user_of + item)
        if user != known:
            user_part = product(
                weights + user_column, e_user + user * k_user * n, rows, cols, k_user, n, stride, BLOCK_K
            )
            known = user
        total = product(weights, e_cand, rows, cols, k_cand, n, stride, BLOCK_K) + user_part
        tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)
        e_cand += k_cand * n
        out += m * n


def run(e_cand, e_user, user_of, w_cand, w_user, packed, out):
    candidates, m, n = out.shape
    k_cand, k_user = e_cand.shape[1], e_user.shape[1]
    user_column = triton.cdiv(k_cand, DEPTH) * DEPTH
    block_k = 2 * BLOCK_K // out.element_size()  # as many bytes in any type: shared memory is what limits stages
    tiles = triton.cdiv(m, BLOCK_M) * triton.cdiv(n, BLOCK_N)
    rank_run[(triton.cdiv(candidates, RUN) * tiles,)](
        e_cand, e_user, user_of, packed, out, candidates, m, k_cand, k_user, n, packed.shape[1], user_column,
        RUN, BLOCK_M, BLOCK_N, block_k, num_warps=NUM_WARPS, num_stages=NUM_STAGES,
    )  # fmt: skip
