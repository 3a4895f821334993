"""What a user would run instead: name(*inputs, *outputs), writing into the outputs that it is given."""

import torch


def eager(x: torch.Tensor, factor: torch.Tensor, out: torch.Tensor) -> None:
    """Eager PyTorch."""
    torch.mul(x, factor, out=out)


def compiled(x: torch.Tensor, factor: torch.Tensor, out: torch.Tensor) -> None:
    """A plain function: the judge wraps it in torch.compile, because target.toml says so."""
    out.copy_(x * factor)
