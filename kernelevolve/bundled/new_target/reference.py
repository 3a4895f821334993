"""What is right. Plain PyTorch, for any floating type: it is also called in float64, for the truth."""

import torch


def reference(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return the output, or a tuple of the outputs in the target's order. Inputs must stay as they are."""
    return x * factor
