"""Top-K by radix select over the whole device: count digits, fix the one in which the k-th best lies, go on below it.

A row is dealt to many programs in chunks, so a few long rows fill the device too. Programs of a row agree through
counts in memory: each launch adds up one digit, and the next launch begins by reading off what was found. Every
program repeats that small search, which is cheaper than a launch of its own for it. A last program per row sorts
the k winners. Good for large k and for values that repeat: the work doesn't depend on either.
"""

import torch
import triton
import triton.language as tl

TUNABLES = {
    "RADIX_BITS": [8, 6, 10, 11],
    "CHUNK": [4096, 8192, 2048, 16384],
    "NUM_WARPS": [8, 4, 16],
    "SORT_WARPS": [8, 4, 16],
}

# Kernels see integers only: nothing is rounded, flushed or quieted on the way. The patterns above infinity's are NaN.
INTEGER = {torch.float32: torch.uint32, torch.bfloat16: torch.uint16, torch.float16: torch.uint16}
INFINITY = {torch.float32: 0x7F800000, torch.bfloat16: 0x7F80, torch.float16: 0x7C00}


@triton.jit
def rank_of(bits, BITS: tl.constexpr, INF: tl.constexpr):
    """An unsigned integer that rises as the value falls, 0 for NaN.

    Negative numbers are in that order as they stand; the others need all but their sign inverted.
    """
    rest: tl.constexpr = (1 << (BITS - 1)) - 1
    bits = bits.to(tl.uint32)
    rank = tl.where(bits > rest, bits, bits ^ rest)
    return tl.where((bits & rest) > INF, 0, rank)


@triton.jit
def load_ranks(x, n, BITS: tl.constexpr, INF: tl.constexpr, CHUNK: tl.constexpr):
    """This program's places in its row, which of them exist, and their ranks."""
    places = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    inside = places < n
    bits = tl.load(x + tl.program_id(1).to(tl.int64) * n + places, mask=inside, other=0)
    return places, inside, rank_of(bits, BITS, INF)


@triton.jit
def next_digit(scratch, PASS: tl.constexpr, prefix, wanted, BITS: tl.constexpr, RADIX_BITS: tl.constexpr):
    """Extend the rank's prefix by the digit in which number `wanted` falls; wanted becomes its number within."""
    rest: tl.constexpr = BITS - (PASS + 1) * RADIX_BITS
    shift: tl.constexpr = rest if rest > 0 else 0
    upto = tl.cumsum(tl.load(scratch + (PASS << RADIX_BITS) + tl.arange(0, 1 << RADIX_BITS)), 0)
    before = upto < wanted
    digit = tl.sum(before.to(tl.int32), 0)
    return prefix | (digit.to(tl.uint32) << shift), wanted - tl.max(tl.where(before, upto, 0), 0)


@triton.jit
def find(scratch, k, BITS: tl.constexpr, RADIX_BITS: tl.constexpr, PASSES: tl.constexpr):
    """What the first PASSES digits say: the prefix of the k-th best rank, and how many to take of its bearers."""
    prefix = tl.full((), 0, tl.uint32)
    wanted = k
    for index in tl.static_range(PASSES):
        prefix, wanted = next_digit(scratch, index, prefix, wanted, BITS, RADIX_BITS)
    return prefix, wanted


@triton.jit
def count(x, scratch, n, k, row_size, BITS: tl.constexpr, INF: tl.constexpr, RADIX_BITS: tl.constexpr,
          PASS: tl.constexpr, CHUNK: tl.constexpr):  # fmt: skip
    """Add this chunk's elements that share the prefix to the counts of digit PASS."""
    rest: tl.constexpr = BITS - (PASS + 1) * RADIX_BITS
    shift: tl.constexpr = rest if rest > 0 else 0  # the last digit overlaps where the bits don't divide
    scratch += tl.program_id(1) * row_size
    _, open_, rank = load_ranks(x, n, BITS, INF, CHUNK)
    if PASS > 0:
        prefix, _ = find(scratch, k, BITS, RADIX_BITS, PASS)
        fixed: tl.constexpr = BITS - PASS * RADIX_BITS
        open_ &= (rank >> fixed) == (prefix >> fixed)
    digit = ((rank >> shift) & ((1 << RADIX_BITS) - 1)).to(tl.int32)
    counts = tl.histogram(digit, 1 << RADIX_BITS, mask=open_)
    target = scratch + (PASS << RADIX_BITS) + tl.arange(0, 1 << RADIX_BITS)
    tl.atomic_add(target, counts, mask=counts > 0, sem="relaxed")


@triton.jit
def gather(x, scratch, winners, n, k, row_size, BITS: tl.constexpr, INF: tl.constexpr, RADIX_BITS: tl.constexpr,
           PASSES: tl.constexpr, CHUNK: tl.constexpr):  # fmt: skip
    """Write this chunk's winners, in any order: all that beat the k-th best, and its equals while there is room."""
    scratch += tl.program_id(1) * row_size
    places, inside, rank = load_ranks(x, n, BITS, INF, CHUNK)
    last, ties = find(scratch, k, BITS, RADIX_BITS, PASSES)
    better = (inside & (rank < last)).to(tl.int32)
    equal = (inside & (rank == last)).to(tl.int32)
    cursors = scratch + (PASSES << RADIX_BITS)
    # One reservation for the whole chunk; the running sum deals the places within it.
    slot = tl.atomic_add(cursors, tl.sum(better, 0), sem="relaxed") + tl.cumsum(better, 0) - 1
    tie = tl.atomic_add(cursors + 1, tl.sum(equal, 0), sem="relaxed") + tl.cumsum(equal, 0) - 1
    slot = tl.where(better > 0, slot, k - ties + tie)
    wins = (better > 0) | ((equal > 0) & (tie < ties))
    tl.store(winners + tl.program_id(1) * k + slot, (rank.to(tl.int64) << 31) | places, mask=wins)


@triton.jit
def bitonic_sort(x, LOG: tl.constexpr):
    """The 2**LOG elements of x, rising.

    Partners are fetched with a gather, in a loop: an unrolled sort takes seconds to minutes to compile.
    """
    lanes = tl.arange(0, 1 << LOG)
    for stage in range(1, LOG + 1):
        for down in range(stage):
            step = stage - 1 - down
            other = tl.gather(x, lanes ^ (1 << step), 0)
            lower = ((lanes >> step) & 1) == ((lanes >> stage) & 1)
            x = tl.where(lower, tl.minimum(x, other), tl.maximum(x, other))
    return x


@triton.jit
def sort(winners, values, indices, k, BITS: tl.constexpr, LOG_K: tl.constexpr):
    """Order the winners of a row by rank, then place, and take the two apart again."""
    slots = tl.arange(0, 1 << LOG_K)
    offsets = tl.program_id(0) * k + slots
    # The padding has the worst rank of all, one that no element has.
    packed = bitonic_sort(tl.load(winners + offsets, mask=slots < k, other=0x7FFFFFFFFFFFFFFF), LOG_K)
    rest: tl.constexpr = (1 << (BITS - 1)) - 1
    rank = packed >> 31
    bits = tl.where(rank > rest, rank, rank ^ rest)
    tl.store(values + offsets, bits.to(values.dtype.element_ty), mask=slots < k)
    tl.store(indices + offsets, packed & 0x7FFFFFFF, mask=slots < k)


def run(x, k, values, indices):
    batch, n = x.shape
    bits, inf, integer = 8 * x.element_size(), INFINITY[x.dtype], INTEGER[x.dtype]
    passes = triton.cdiv(bits, RADIX_BITS)
    row_size = (passes << RADIX_BITS) + 2  # counts of every digit, then two cursors
    scratch = torch.zeros((batch, row_size), dtype=torch.int32, device=x.device)
    winners = torch.empty((batch, k), dtype=torch.int64, device=x.device)
    grid = (triton.cdiv(n, CHUNK), batch)
    source, sizes = x.view(integer), (n, k, row_size, bits, inf, RADIX_BITS)
    for index in range(passes):
        count[grid](source, scratch, *sizes, index, CHUNK, num_warps=NUM_WARPS)
    gather[grid](source, scratch, winners, *sizes, passes, CHUNK, num_warps=NUM_WARPS)
    log_k = max(8, (k - 1).bit_length())
    sort[(batch,)](winners, values.view(integer), indices, k, bits, log_k, num_warps=SORT_WARPS)
