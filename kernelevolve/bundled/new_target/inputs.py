"""Inputs that look like production, and inputs that break shortcuts. Normal values need no such file."""

import torch


def make(
    case: str, axes: dict[str, int], dtypes: dict[str, str], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Inputs of a case, by name; what is left out (here `factor`) gets standard normal values.

    Draw from `generator` alone, on its device: the same generator must give the same inputs.
    """
    x = torch.randn(axes["rows"], axes["n"], generator=generator, device=generator.device)
    if case == "spikes":
        x = torch.where(x > 1.5, x * 1e6, 0.0)
    return {"x": x.to(getattr(torch, dtypes["T"]))}
