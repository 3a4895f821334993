"""A fixed number of programs walk the tiles of all groups: no tile is launched in vain, and uneven groups even out.

How many tiles a group has is known on the device only. Every program reads all offsets at once as a vector, and the
running sum of tiles stays in registers; the group of a tile is then one comparison and one sum, not a search.
"""

import torch
import triton
import triton.language as tl

TUNABLES = {
    "PROGRAMS": [264, 132, 528, 1056],
    "BLOCK_M": [64, 128, 32, 16],
    "BLOCK_N": [64, 128, 256],
    "BLOCK_K": [64, 32],
    "NUM_WARPS": [4, 8],
    "NUM_STAGES": [3, 4, 2],
}

WIDTH = 64  # multiple to which the weights are padded: at least as large as BLOCK_K


def prepare(b):
    """The weights with k and n padded by zeros to multiples of WIDTH.

    Odd rows (n = 451) allow neither wide loads nor asynchronous copies; padded ones do, and need no mask over k.
    """
    _, k, n = b.shape
    return torch.nn.functional.pad(b, (0, -n % WIDTH, 0, -k % WIDTH))


@triton.jit
def all_tiles(a, offsets, b, out, groups, k, n, depth_b, width_b, GROUPS: tl.constexpr,
              BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    tiles_n = tl.cdiv(n, BLOCK_N)
    ids = tl.arange(0, GROUPS)
    begins = tl.load(offsets + ids, mask=ids < groups, other=0)
    ends = tl.load(offsets + 1 + ids, mask=ids < groups, other=0)
    tiles = tl.cdiv(ends - begins, BLOCK_M).to(tl.int32) * tiles_n
    upto = tl.cumsum(tiles, 0)
    total = tl.sum(tiles, 0)

    for tile in range(tl.program_id(0), total, tl.num_programs(0)):
        group = tl.sum((upto <= tile).to(tl.int32), 0)
        begin = tl.load(offsets + group)
        size = (tl.load(offsets + group + 1) - begin).to(tl.int32)
        # Down the rows first: programs at work side by side read the same weights.
        tiles_m = tl.cdiv(size, BLOCK_M)
        local = tile - tl.max(tl.where(upto <= tile, upto, 0), 0)
        rows = local % tiles_m * BLOCK_M + tl.arange(0, BLOCK_M)
        cols = local // tiles_m * BLOCK_N + tl.arange(0, BLOCK_N)
        depth = tl.arange(0, BLOCK_K)
        # The tiles' offsets stay as they are, in 32 bits; what advances is one pointer to the start of each.
        a_part = a + begin * k
        b_part = b + group.to(tl.int64) * depth_b * width_b
        a_tile = rows[:, None] * k + depth[None, :]
        b_tile = depth[:, None] * width_b + cols[None, :]
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for start in range(0, k, BLOCK_K):
            # The weights are zero past k, but zero times what lies behind a row could be NaN: a needs its mask.
            x = tl.load(a_part + a_tile, mask=(rows[:, None] < size) & (depth[None, :] < k - start), other=0.0)
            w = tl.load(b_part + b_tile, mask=cols[None, :] < width_b, other=0.0)
            acc = tl.dot(x, w, acc, input_precision="ieee")
            a_part += BLOCK_K
            b_part += BLOCK_K * width_b
        inside = (rows[:, None] < size) & (cols[None, :] < n)
        place = begin * n + rows[:, None] * n + cols[None, :]
        tl.store(out + place, acc.to(out.dtype.element_ty), mask=inside)


def run(a, offsets, b, packed, out):
    rows, k = a.shape
    groups, _, n = b.shape
    # A group has at most one tile of rows that isn't full.
    bound = (rows // BLOCK_M + min(groups, rows)) * triton.cdiv(n, BLOCK_N)
    block_k = 2 * BLOCK_K // a.element_size()  # as many bytes in any type: shared memory is what limits stages
    all_tiles[(min(PROGRAMS, bound),)](
        a, offsets, packed, out, groups, k, n, packed.shape[1], packed.shape[2], triton.next_power_of_2(groups),
        BLOCK_M, BLOCK_N, block_k, num_warps=NUM_WARPS, num_stages=NUM_STAGES,
    )  # fmt: skip
