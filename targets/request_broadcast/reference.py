"""What is right: the linear layer over a candidate's embedding and that of the user who made the request."""

import torch


def reference(
    e_cand: torch.Tensor,
    e_user: torch.Tensor,
    user_of: torch.Tensor,
    w_cand: torch.Tensor,
    w_user: torch.Tensor,
) -> torch.Tensor:
    """out[b] = w_cand @ e_cand[b] + (w_user @ e_user)[user_of[b]], shape [candidates, m, n]."""
    return torch.matmul(w_cand, e_cand) + torch.matmul(w_user, e_user)[user_of]
