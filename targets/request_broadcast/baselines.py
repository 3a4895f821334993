"""What a user would run instead of a kernel of their own."""

import torch


def naive(
    e_cand: torch.Tensor,
    e_user: torch.Tensor,
    user_of: torch.Tensor,
    w_cand: torch.Tensor,
    w_user: torch.Tensor,
    out: torch.Tensor,
) -> None:
    copied = torch.cat((e_cand, e_user[user_of]), dim=1)
    weights = torch.cat((w_cand, w_user), dim=1)
    torch.bmm(weights.expand(len(copied), -1, -1), copied, out=out)


def decomposed(
    e_cand: torch.Tensor,
    e_user: torch.Tensor,
    user_of: torch.Tensor,
    w_cand: torch.Tensor,
    w_user: torch.Tensor,
    out: torch.Tensor,
) -> None:
    # Gathering the user part into `out` and adding onto it needs no other buffer of its size.
    torch.index_select(torch.matmul(w_user, e_user), 0, user_of, out=out)
    out.baddbmm_(w_cand.expand(len(e_cand), -1, -1), e_cand)


def decomposed_compiled(
    e_cand: torch.Tensor,
    e_user: torch.Tensor,
    user_of: torch.Tensor,
    w_cand: torch.Tensor,
    w_user: torch.Tensor,
    out: torch.Tensor,
) -> None:
    out.copy_(torch.matmul(w_cand, e_cand) + torch.matmul(w_user, e_user)[user_of])


def decomposed_float32(
    e_cand: torch.Tensor,
    e_user: torch.Tensor,
    user_of: torch.Tensor,
    w_cand: torch.Tensor,
    w_user: torch.Tensor,
    out: torch.Tensor,
) -> None:
    user_part = torch.matmul(w_user.float(), e_user.float())
    total = user_part[user_of].baddbmm_(w_cand.float().expand(len(e_cand), -1, -1), e_cand.float())
    out.copy_(total)
