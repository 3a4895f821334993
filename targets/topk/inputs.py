"""Rows to select from: scores as a ranking service sees them, and rows that break shortcuts.

Cases with special values are made in the element type itself: a conversion would lose the sign of a NaN.
"""

from collections.abc import Callable

import torch

Rows = tuple[int, int]
Case = Callable[[Rows, int, torch.dtype, torch.Generator], torch.Tensor]


def make(
    case: str, axes: dict[str, int], dtypes: dict[str, str], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    rows = (axes["batch"], axes["n"])
    dtype: torch.dtype = getattr(torch, dtypes["T"])
    return {"x": CASES[case](rows, axes["k"], dtype, generator)}


def _normal(rows: Rows, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(rows, generator=generator, device=generator.device)


def _uniform(rows: Rows, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(rows, generator=generator, device=generator.device)


def scores(rows: Rows, k: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Quantised logits: values repeat, also around the k-th largest."""
    return (_normal(rows, generator) * 32).round().div(32).to(dtype)


def long_tail(rows: Rows, k: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Counts and prices: a log-normal tail, and one item in eight exactly zero."""
    tail = (_normal(rows, generator) * 1.5).exp()
    return torch.where(_uniform(rows, generator) < 0.125, 0.0, tail).to(dtype)


def ties(rows: Rows, k: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Four distinct values, so that the k-th largest is one of very many equal ones."""
    return (_uniform(rows, generator) * 4).floor().sub(2).to(dtype)


def equal(rows: Rows, k: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Every row is one value, repeated."""
    return _normal((rows[0], 1), generator).to(dtype).expand(rows).contiguous()


def ascending(rows: Rows, k: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Sorted rows: each element beats all before it, the worst order for a heap or a running threshold."""
    return _normal(rows, generator).to(dtype).sort(dim=-1).values


def descending(rows: Rows, k: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Sorted rows, the answer in front."""
    return ascending(rows, k, dtype, generator).flip(-1).contiguous()


def special(rows: Rows, k: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """NaN of either sign, infinities and signed zeros among ordinary values; the first row is all NaN."""
    x = _normal(rows, generator).to(dtype)
    draw = _uniform(rows, generator)
    nan = torch.full_like(x, float("nan")).copysign(torch.full_like(x, 1.0))
    kinds = (nan, nan.copysign(torch.full_like(x, -1.0)), float("inf"), -float("inf"), 0.0, -0.0)
    for index, value in enumerate(kinds):
        x = torch.where((draw >= index * 0.01) & (draw < (index + 1) * 0.01), value, x)
    x[0] = float("nan")
    return x


def subnormal(rows: Rows, k: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Values below the smallest normal number: all zero to arithmetic that flushes subnormals."""
    least = torch.finfo(dtype).smallest_normal
    return ((_uniform(rows, generator) * 2 - 1) * least).to(dtype)


def spikes(rows: Rows, k: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Zeros with about k / 2 positive spikes in a row: the rest of the answer is ties at zero."""
    hit = _uniform(rows, generator) < max(1, k // 2) / rows[1]
    return torch.where(hit, _normal(rows, generator).abs(), 0.0).to(dtype)


def magnitudes(rows: Rows, k: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Both signs, exponents over the whole range of the type."""
    decades = 4.0 if dtype == torch.float16 else 36.0
    exponent = (_uniform(rows, generator) * 2 - 1) * decades
    return (_normal(rows, generator).sign() * 10**exponent).to(dtype)


def one_tile(rows: Rows, k: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """The whole answer lies side by side: at the end of even rows, at the start of odd ones."""
    x = -_uniform(rows, generator)
    winners = _uniform((rows[0], k), generator) + 1
    x[0::2, rows[1] - k :] = winners[0::2]
    x[1::2, :k] = winners[1::2]
    return x.to(dtype)


CASES: dict[str, Case] = {
    "scores": scores,
    "long_tail": long_tail,
    "ties": ties,
    "equal": equal,
    "ascending": ascending,
    "descending": descending,
    "special": special,
    "subnormal": subnormal,
    "spikes": spikes,
    "magnitudes": magnitudes,
    "one_tile": one_tile,
}
