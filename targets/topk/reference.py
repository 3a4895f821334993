"""What is right: the semantics of `torch.topk`, where NaN counts as larger than everything else."""

import torch


def reference(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row of x [batch, n], descending: values [batch, k] and positions [batch, k]."""
    values, indices = torch.topk(x, k, dim=-1, largest=True, sorted=True)
    return values, indices
