"""What a user would run instead of a kernel of their own."""

from itertools import pairwise

import torch


def loop(a: torch.Tensor, offsets: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    for group, (start, end) in enumerate(pairwise(offsets.tolist())):
        if start < end:
            torch.mm(a[start:end], b[group], out=out[start:end])


def loop_float32(a: torch.Tensor, offsets: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    wide = torch.empty(out.shape, device=out.device)
    loop(a.float(), offsets, b.float(), wide)
    out.copy_(wide)


def padded_bmm(a: torch.Tensor, offsets: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    lengths = offsets.diff()
    group = torch.repeat_interleave(lengths, output_size=len(a))
    place = torch.arange(len(a), device=a.device) - offsets[group]
    padded = a.new_zeros(len(b), int(lengths.max()), a.shape[1])
    padded[group, place] = a
    out.copy_(torch.bmm(padded, b)[group, place])


def padded_bmm_float32(a: torch.Tensor, offsets: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    padded_bmm(a.float(), offsets, b.float(), out)


def grouped_mm(a: torch.Tensor, offsets: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    # The library wants strides that are multiples of 16 bytes: other sizes are padded with zeros, as a user would.
    unit = 16 // a.element_size()
    k, n = -a.shape[1] % unit, -b.shape[2] % unit
    if k or n:
        a, b = torch.nn.functional.pad(a, (0, k)), torch.nn.functional.pad(b, (0, n, 0, k))
    product = torch.nn.functional.grouped_mm(a, b, offs=offsets[1:].to(torch.int32))
    out.copy_(product[:, : out.shape[1]])


def grouped_mm_compiled(a: torch.Tensor, offsets: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    grouped_mm(a, offsets, b, out)
