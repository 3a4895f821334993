"""Small Triton candidates for the tests of the triage: good ones, and a broken one of each kind."""

HEAD = """\
import torch
import triton
import triton.language as tl


@triton.jit
def double(x, y, n, B: tl.constexpr):
    o = tl.program_id(0) * B + tl.arange(0, B)
    BODY


def run(x, y):
    double[(triton.cdiv(x.numel(), 512),)](x, y, x.numel(), B=512)
"""
BODY = "tl.store(y + o, tl.load(x + o, mask=o < n) * 2, mask=o < n)"
DOUBLE = HEAD.replace("BODY", BODY)
UNKNOWN_NAME = HEAD.replace("BODY", "tl.store(y + o, tl.nothing(x + o))")
NO_POWER_OF_TWO = DOUBLE.replace("B=512", "B=500")
IN_A_HELPER = HEAD.replace("BODY", "tl.store(y + o, helper(x + o))").replace(
    "@triton.jit\n", "@triton.jit\ndef helper(p):\n    return tl.load(p) + unknown\n\n\n@triton.jit\n", 1
)
BAD_ASSEMBLY = HEAD.replace(
    "BODY",
    'v = tl.inline_asm_elementwise("bogus.f32 $0, $1;", "=r,r", [tl.load(x + o, mask=o < n)], '
    "dtype=tl.float32, is_pure=True, pack=1)\n    tl.store(y + o, v, mask=o < n)",
)
UNMASKED_STORE = HEAD.replace("BODY", "tl.store(y + o, tl.load(x + o, mask=o < n) * 2)")
SHORT_TAIL = HEAD.replace("BODY", BODY.replace("o < n)", "o < n - 5)"))
READS_VALUES = DOUBLE.replace("x, y, x.numel(), B", "x, y, x.numel() if x[0].item() < 100 else 3, B")
RAISES = DOUBLE.replace("x, y, x.numel(), B", "x, z, x.numel(), B")
EXITS = DOUBLE.replace("    double[", "    import os; os._exit(3)\n    double[")
TOO_MANY_THREADS = DOUBLE.replace("B=512", "B=512, num_warps=64")
HANGS = DOUBLE.replace("    double[", "    while True: pass\n    double[")
IMPORTS = "import nowhere_to_be_found\n" + DOUBLE
GONE = HEAD.replace("BODY", "tl.store(y + o, tl.libdevice.exp(tl.load(x + o, mask=o < n)), mask=o < n)")
BAD_CONSTRAINTS = BAD_ASSEMBLY.replace('"=r,r"', '"=r,r,r,r"')
TOO_MUCH_SHARED = """\
import torch
import triton
import triton.language as tl


@triton.jit
def double(x, y, n, B: tl.constexpr):
    rows, columns = tl.arange(0, B), tl.arange(0, B)
    total = tl.zeros((B, B), tl.float32)
    for start in range(0, n, 64):
        at = start + tl.arange(0, 64)
        a = tl.load(x + rows[:, None] + at[None, :], mask=at[None, :] < n, other=0.0)
        b = tl.load(x + at[:, None] + columns[None, :], mask=at[:, None] < n, other=0.0)
        total = tl.dot(a, b, total)
    tl.store(y + rows[:, None] + columns[None, :], total, mask=rows[:, None] + columns[None, :] < n)


def run(x, y):
    double[(1,)](x, y, x.numel(), B=256, num_warps=8, num_stages=4)
"""

BLOCK_POINTER = """\
import triton
import triton.language as tl


@triton.jit
def double(x, y, n, B: tl.constexpr):
    at = tl.program_id(0) * B
    source = tl.make_block_ptr(x, (n,), (1,), (at,), (B,), (0,))
    target = tl.make_block_ptr(y, (n,), (1,), (at,), (B,), (0,))
    tl.store(target, tl.load(source, boundary_check=(0,)) * 2, boundary_check=(0,))


def run(x, y):
    double[(triton.cdiv(x.numel(), 512),)](x, y, x.numel(), B=512)
"""
DESCRIPTOR = """\
import triton
import triton.language as tl


@triton.jit
def double(x, y, rows, COLUMNS: tl.constexpr, B: tl.constexpr):
    source = tl.make_tensor_descriptor(x, [rows, COLUMNS], [COLUMNS, 1], [B, COLUMNS])
    target = tl.make_tensor_descriptor(y, [rows, COLUMNS], [COLUMNS, 1], [B, COLUMNS])
    at = tl.program_id(0) * B
    target.store([at, 0], source.load([at, 0]) * 2)


def run(x, y):
    import torch

    triton.set_allocator(lambda size, alignment, stream: torch.empty(size, device=x.device, dtype=torch.int8))
    double[(triton.cdiv(x.shape[0], 16),)](x, y, x.shape[0], COLUMNS=x.shape[1], B=16)
"""
COUNTS = """\
import triton
import triton.language as tl


@triton.jit
def count(x, y, n, B: tl.constexpr):
    o = tl.program_id(0) * B + tl.arange(0, B)
    inside = o < n
    value = tl.load(x + o, mask=inside, other=0)
    tl.atomic_add(y + value, inside.to(tl.int32), mask=inside)
    tl.atomic_max(y + 16, tl.max(value, 0))


@triton.jit
def clear(y, B: tl.constexpr):
    tl.store(y + tl.arange(0, B), tl.zeros((B,), tl.int32), mask=tl.arange(0, B) < 17)


def run(x, y):
    clear[(1,)](y, B=32)
    count[(triton.cdiv(x.numel(), 256),)](x, y, x.numel(), B=256)
"""
SCALED = """\
import torch
import triton
import triton.language as tl


@triton.jit
def product(a, b, c, K: tl.constexpr, B: tl.constexpr):
    i = tl.arange(0, B)
    total = tl.zeros((B, B), tl.float32)
    for start in range(0, K, B):
        at = start + i
        x = tl.load(a + i[:, None] * K + at[None, :])
        y = tl.load(b + i[None, :] * K + at[:, None])
        total = tl.dot(x, y, total)
    tl.store(c + i[:, None] * B + i[None, :], total.to(c.dtype.element_ty))


def run(a, b, c):
    product[(1,)](a, b, c, K=a.shape[1], B=32)
"""

MATMUL = """\
import torch
import triton
import triton.language as tl


@triton.autotune(
    configs=[
        triton.Config({"BM": 64, "BN": 64, "BK": 32}, num_warps=4, num_stages=3),
        triton.Config({"BM": 256, "BN": 256, "BK": 128}, num_warps=8, num_stages=4),
    ],
    key=["m", "n", "k"],
)
@triton.jit
def matmul(a, b, c, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, k, BK):
        at = start + inner
        x = tl.load(a + rows[:, None] * k + at[None, :], mask=(rows[:, None] < m) & (at[None, :] < k), other=0.0)
        y = tl.load(b + at[:, None] * n + columns[None, :], mask=(at[:, None] < k) & (columns[None, :] < n), other=0.0)
        total = tl.dot(x, y, total)
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    tl.store(c + rows[:, None] * n + columns[None, :], total.to(c.dtype.element_ty), mask=inside)


def prepare(b):
    return b.t().contiguous()


def run(a, b, packed, c):
    m, k = a.shape
    n = packed.shape[1]
    matmul[lambda meta: (triton.cdiv(m, meta["BM"]), triton.cdiv(n, meta["BN"]))](a, packed, c, m, n, k)
"""

SORT = """\
import triton
import triton.language as tl


@triton.jit
def sort_rows(x, y, N: tl.constexpr):
    o = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(y + o, tl.sort(tl.load(x + o)))


def run(x, y):
    sort_rows[(x.shape[0],)](x, y, N=x.shape[1])
"""
