"""Rows in groups of uneven size, some empty, and values that break shortcuts."""

import torch


def make(
    case: str, axes: dict[str, int], dtypes: dict[str, str], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    dtype: torch.dtype = getattr(torch, dtypes["T"])
    rows, groups, k, n = axes["rows"], axes["groups"], axes["k"], axes["n"]
    a = _normal(generator, rows, k)
    if case == "spikes":
        a *= torch.nn.functional.one_hot(torch.arange(rows, device=a.device) % k, k)
    elif case == "magnitudes":
        a *= 10 ** (torch.rand((1, k), generator=generator, device=a.device) * 6 - 3)
        a[:: max(1, rows // 4)] = 0.0
    elif case == "special":
        a[0, -1], a[-1, -1] = float("nan"), float("inf")
    sizes = SIZES.get(case, uneven)(rows, groups, generator)
    offsets = torch.zeros(groups + 1, dtype=torch.int64, device=generator.device)
    offsets[1:] = sizes.cumsum(0)
    weights = _normal(generator, groups, k, n) / k**0.5
    return {"a": a.to(dtype), "offsets": offsets, "b": weights.to(dtype)}


def uneven(rows: int, groups: int, generator: torch.Generator) -> torch.Tensor:
    """Cut at random; one group in eight (at least one) is empty.

    Every other group has a row, where there are enough: the target's cost model counts on it.
    """
    order = torch.randperm(groups, generator=generator, device=generator.device)
    present = order[: max(1, groups - max(1, groups // 8))]
    sizes = torch.zeros(groups, dtype=torch.int64, device=generator.device)
    sure = min(len(present), rows)
    sizes[present[:sure]] = 1
    spare = rows - sure
    cuts = torch.randint(spare + 1, (len(present) - 1,), generator=generator, device=generator.device)
    cuts = torch.cat((cuts.new_tensor([0]), cuts.sort().values, cuts.new_tensor([spare])))
    sizes[present] += cuts.diff()
    return sizes


def even(rows: int, groups: int, generator: torch.Generator) -> torch.Tensor:
    """Sizes that differ by at most one."""
    sizes = torch.full((groups,), rows // groups, dtype=torch.int64, device=generator.device)
    sizes[: rows % groups] += 1
    return sizes


def one_group(rows: int, groups: int, generator: torch.Generator) -> torch.Tensor:
    """Every row is in one group, somewhere among empty ones."""
    sizes = torch.zeros(groups, dtype=torch.int64, device=generator.device)
    sizes[torch.randint(groups, (1,), generator=generator, device=generator.device)] = rows
    return sizes


def empty_ends(rows: int, groups: int, generator: torch.Generator) -> torch.Tensor:
    """Only the groups of the middle third have rows."""
    third = groups // 3
    sizes = torch.zeros(groups, dtype=torch.int64, device=generator.device)
    sizes[third : groups - third] = uneven(rows, groups - 2 * third, generator)
    return sizes


SIZES = {"uneven": uneven, "even": even, "one_group": one_group, "empty_ends": empty_ends}
CASES = (*SIZES, "spikes", "magnitudes", "special")


def _normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)
