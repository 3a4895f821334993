"""What is right: one matrix product for each group of rows."""

from itertools import pairwise

import torch


def reference(a: torch.Tensor, offsets: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Rows offsets[g] to offsets[g + 1] of a [rows, k] times b[g] [k, n], for every group: [rows, n]."""
    bounds = pairwise(offsets.tolist())
    return torch.cat([a[start:end] @ weights for (start, end), weights in zip(bounds, b, strict=True)])
