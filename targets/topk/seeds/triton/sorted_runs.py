"""Top-K by keeping sorted lists: each program reads a piece of a row and holds its best, a second kernel merges pieces.

Two launches and one pass over the input, so this is the one for small k and few rows. What it rests on: for a list
that rises and one that falls, the larger of each pair are the best of both. A block that holds nothing better than
the worst of the list is passed over without sorting, which is most of them once k is small against the piece.
"""

import torch
import triton
import triton.language as tl

TUNABLES = {
    "PIECE": [8192, 4096, 16384, 2048],
    "LOG_LENGTH": [9, 8, 10, 11],
    "NUM_WARPS": [8, 4, 16],
    "MERGE_WARPS": [8, 4, 16],
}

# Kernels see integers only: nothing is rounded, flushed or quieted on the way. The patterns above infinity's are NaN.
INTEGER = {torch.float32: torch.uint32, torch.bfloat16: torch.uint16, torch.float16: torch.uint16}
INFINITY = {torch.float32: 0x7F800000, torch.bfloat16: 0x7F80, torch.float16: 0x7C00}

# Below and above every packed element.
NOTHING = tl.constexpr(-1)
INFINITE = tl.constexpr(0x7FFFFFFFFFFFFFFF)


@triton.jit
def pack(bits, places, BITS: tl.constexpr, INF: tl.constexpr):
    """Value and place in one integer of 63 bits that sorts as torch.topk does, NaN first.

    Read as an integer, a negative float rises as its value falls and has to be inverted; the others need the
    sign bit set, to lie above.
    """
    sign: tl.constexpr = 1 << (BITS - 1)
    bits = bits.to(tl.int64)
    key = tl.where(bits >= sign, 2 * sign - 1 - bits, bits + sign)
    key = tl.where((bits & (sign - 1)) > INF, 2 * sign - 1, key)
    return (key << 31) | places


@triton.jit
def unpack(packed, BITS: tl.constexpr):
    """The bits of the value, and the place."""
    sign: tl.constexpr = 1 << (BITS - 1)
    key = packed >> 31
    return tl.where(key >= sign, key - sign, 2 * sign - 1 - key), packed & 0x7FFFFFFF


@triton.jit
def bitonic(x, FIRST: tl.constexpr, LOG: tl.constexpr):
    """Stages FIRST to LOG of a bitonic sort of 2**LOG elements, rising: all of them sort, the last one alone merges.

    Partners are fetched with a gather, in a loop: an unrolled sort takes seconds to minutes to compile.
    """
    lanes = tl.arange(0, 1 << LOG)
    for stage in range(FIRST, LOG + 1):
        for down in range(stage):
            step = stage - 1 - down
            other = tl.gather(x, lanes ^ (1 << step), 0)
            lower = ((lanes >> step) & 1) == ((lanes >> stage) & 1)
            x = tl.where(lower, tl.minimum(x, other), tl.maximum(x, other))
    return x


@triton.jit
def best_of_piece(x, runs, n, k, piece, BITS: tl.constexpr, INF: tl.constexpr, LOG: tl.constexpr):
    """The best k of one piece of a row, rising, at the end of a run of 2**LOG."""
    length: tl.constexpr = 1 << LOG
    lanes = tl.arange(0, length)
    row = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0) * piece
    end = tl.minimum(start + piece, n)
    best = tl.full((length,), NOTHING, tl.int64)
    worst = tl.full((), NOTHING, tl.int64)  # of the best k: what a newcomer has to beat
    for at in range(start, end, length):
        places = at + lanes
        bits = tl.load(x + row * n + places, mask=places < end, other=0)
        block = tl.where(places < end, pack(bits, places, BITS, INF), NOTHING)
        if tl.max(block, 0) > worst:
            falling = -bitonic(-block, 1, LOG)  # sorted the other way round, for the price of two signs
            best = bitonic(tl.maximum(best, falling), LOG, LOG)
            worst = tl.min(tl.where(lanes >= length - k, best, INFINITE), 0)
    run_id = row * tl.num_programs(0) + tl.program_id(0)
    tl.store(runs + run_id * length + lanes, best)


@triton.jit
def merge(runs, values, indices, k, pieces, BITS: tl.constexpr, LOG: tl.constexpr):
    """Merge the runs of a row and write the best k, falling."""
    length: tl.constexpr = 1 << LOG
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, length)
    falling = length - 1 - lanes
    runs += row * pieces * length
    best = tl.load(runs + lanes)
    for piece in range(1, pieces):
        best = bitonic(tl.maximum(best, tl.load(runs + piece * length + falling)), LOG, LOG)
    bits, places = unpack(best, BITS)
    tl.store(values + row * k + falling, bits.to(values.dtype.element_ty), mask=falling < k)
    tl.store(indices + row * k + falling, places, mask=falling < k)


def run(x, k, values, indices):
    batch, n = x.shape
    bits, inf, integer = 8 * x.element_size(), INFINITY[x.dtype], INTEGER[x.dtype]
    log = max(LOG_LENGTH, (k - 1).bit_length())
    # Pieces are several times as long as the runs that they leave: the merge reads them one after the other.
    piece = max(PIECE, 4 << log)
    pieces = triton.cdiv(n, piece)
    runs = torch.empty((batch, pieces, 1 << log), dtype=torch.int64, device=x.device)
    best_of_piece[(pieces, batch)](x.view(integer), runs, n, k, piece, bits, inf, log, num_warps=NUM_WARPS)
    merge[(batch,)](runs, values.view(integer), indices, k, pieces, bits, log, num_warps=MERGE_WARPS)
