"""The user's part once for each user, then the candidate's part with the user's added as the tile is written.

Both phases are one batched GEMM, weights [m, k] times embeddings [k, n], launched twice. The user's part stays in
float32 between them, so that it is rounded once, with the sum.
"""

import torch
import triton
import triton.language as tl

TUNABLES = {
    "BLOCK_M": [64, 128],
    "BLOCK_N": [128, 256, 64],
    "BLOCK_K": [64, 32],
    "NUM_WARPS": [4, 8],
    "NUM_STAGES": [3, 4, 2],
}

ROWS, DEPTH = 128, 64  # multiples to which the weights are padded: at least as large as any block


def prepare(w_cand, w_user):
    """Both weights beside each other, padded with zeros.

    Odd row lengths (866, 1178) allow neither wide loads nor asynchronous copies; padded rows allow both, and the
    loads of weights need no masks.
    """
    pad = torch.nn.functional.pad
    return torch.cat([pad(w, (0, -w.shape[1] % DEPTH, 0, -w.shape[0] % ROWS)) for w in (w_cand, w_user)], dim=1)


@triton.jit
def product(weights, embeddings, users_part, user_of, out, m, k, n, stride, column,
            ADD_USER: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """One tile of weights[:, column : column + k] @ embeddings[item], plus that of the item's user where ADD_USER."""
    # The tiles of an item are neighbours: its embedding comes from memory once, the weights stay in the L2 cache.
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile = tl.program_id(0)
    item = (tile // (tiles_m * tiles_n)).to(tl.int64)
    rows = tile % tiles_m * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tile // tiles_m % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)

    weights += rows[:, None] * stride + column + depth[None, :]
    embeddings += item * k * n + depth[:, None] * n + cols[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        # Past the last feature the weights are zero, but zero times what lies behind could be NaN: mask this side.
        e = tl.load(embeddings, mask=(depth[:, None] < k - start) & (cols[None, :] < n), other=0.0)
        acc = tl.dot(tl.load(weights), e, acc, input_precision="ieee")
        weights += BLOCK_K
        embeddings += BLOCK_K * n

    place = rows[:, None] * n + cols[None, :]
    inside = (rows[:, None] < m) & (cols[None, :] < n)
    if ADD_USER:
        user = tl.load(user_of + item)
        acc += tl.load(users_part + user * m * n + place, mask=inside, other=0.0)
    tl.store(out + item * m * n + place, acc.to(out.dtype.element_ty), mask=inside)


def run(e_cand, e_user, user_of, w_cand, w_user, packed, out):
    candidates, m, n = out.shape
    users, k_user, _ = e_user.shape
    k_cand = e_cand.shape[1]
    stride = packed.shape[1]
    users_part = torch.empty((users, m, n), dtype=torch.float32, device=out.device)
    user_column = triton.cdiv(k_cand, DEPTH) * DEPTH
    block_k = 2 * BLOCK_K // out.element_size()  # as many bytes in any type: shared memory is what limits stages
    blocks = (BLOCK_M, BLOCK_N, block_k)
    launch = {"num_warps": NUM_WARPS, "num_stages": NUM_STAGES}
    tiles = triton.cdiv(m, BLOCK_M) * triton.cdiv(n, BLOCK_N)
    product[(users * tiles,)](
        packed, e_user, users_part, user_of, users_part, m, k_user, n, stride, user_column, False, *blocks, **launch
    )
    product[(candidates * tiles,)](
        packed, e_cand, users_part, user_of, out, m, k_cand, n, stride, 0, True, *blocks, **launch
    )
