"""Requests with uneven numbers of candidates, some with none, and embeddings that break shortcuts."""

import torch


def make(
    case: str, axes: dict[str, int], dtypes: dict[str, str], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    dtype: torch.dtype = getattr(torch, dtypes["T"])
    m, n = axes["m"], axes["n"]
    e_cand = _normal(generator, axes["candidates"], axes["k_cand"], n)
    e_user = _normal(generator, axes["users"], axes["k_user"], n)
    if case == "spikes":
        e_cand, e_user = _spikes(e_cand, generator), _spikes(e_user, generator)
    elif case == "magnitudes":
        e_cand, e_user = _magnitudes(e_cand, generator), _magnitudes(e_user, generator)
    elif case == "special":
        e_cand = _special(e_cand)
    return {
        "e_cand": e_cand.to(dtype),
        "e_user": e_user.to(dtype),
        "user_of": USERS.get(case, requests)(axes["candidates"], axes["users"], generator),
        "w_cand": (_normal(generator, m, axes["k_cand"]) / axes["k_cand"] ** 0.5).to(dtype),
        "w_user": (_normal(generator, m, axes["k_user"]) / axes["k_user"] ** 0.5).to(dtype),
    }


def requests(candidates: int, users: int, generator: torch.Generator) -> torch.Tensor:
    """A serving batch: sorted by user, log-normal counts, one user in eight (at least one) without candidate.

    Every other user has a candidate, where there are enough: the target's cost model counts on it.
    """
    order = torch.randperm(users, generator=generator, device=generator.device)
    present = order[: served(users)]
    appeal = _normal(generator, len(present)).exp()
    drawn = present[torch.multinomial(appeal, candidates, replacement=True, generator=generator)]
    sure = min(len(present), candidates)
    drawn[:sure] = present[:sure]
    return drawn.sort().values


def served(users: int) -> int:
    """Users of a serving batch that have candidates."""
    return max(1, users - max(1, users // 8))


def shuffled(candidates: int, users: int, generator: torch.Generator) -> torch.Tensor:
    """Candidates of a user apart from each other."""
    order = torch.randperm(candidates, generator=generator, device=generator.device)
    return requests(candidates, users, generator)[order]


def one_user(candidates: int, users: int, generator: torch.Generator) -> torch.Tensor:
    """Every candidate belongs to the last user."""
    return torch.full((candidates,), users - 1, dtype=torch.int64, device=generator.device)


def descending(candidates: int, users: int, generator: torch.Generator) -> torch.Tensor:
    """Users in falling order, evenly: with as many users as candidates nobody shares."""
    return torch.arange(candidates - 1, -1, -1, device=generator.device) * users // candidates


USERS = {"shuffled": shuffled, "one_user": one_user, "descending": descending}
CASES = ("requests", *USERS, "spikes", "magnitudes", "special")


def _normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _spikes(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One feature of each column is set, the others are zero."""
    feature = torch.randint(x.shape[1], (x.shape[0], 1, x.shape[2]), generator=generator, device=x.device)
    return torch.zeros_like(x).scatter_(1, feature, x.gather(1, feature))


def _magnitudes(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Features on scales of their own, over four decades."""
    scale = torch.rand((x.shape[0], x.shape[1], 1), generator=generator, device=x.device) * 4 - 2
    return x * 10**scale


def _special(x: torch.Tensor) -> torch.Tensor:
    """A NaN in the first candidate, infinities in the last; the last feature, where padding would begin."""
    x[0, -1, 0] = float("nan")
    x[-1, -1, -1] = float("inf")
    return x
