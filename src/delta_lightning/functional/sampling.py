"""The distribution that a token is drawn from, and the draw."""

from __future__ import annotations

import torch
from torch import Tensor


def warp_logits(logprobs_BV: Tensor, *, top_p: float = 1.0, top_k: int = 0) -> Tensor:
    """Log-probabilities after top-k, then top-p (nucleus sampling, arXiv:1904.09751), renormalised; -inf where cut.

    Top-p keeps the smallest set of most probable tokens whose mass reaches `top_p`; the most probable token is always kept.

    Args:
        logprobs_BV: normalised log-probabilities. top_p: in (0, 1]. top_k: 0 keeps all.
    """
    if top_k <= 0 and top_p >= 1.0:
        return logprobs_BV
    kept = logprobs_BV
    if 0 < top_k < kept.shape[-1]:
        floor = kept.topk(top_k, dim=-1).values[..., -1:]
        kept = kept.masked_fill(kept < floor, -torch.inf)
    if top_p < 1.0:
        ordered, order = torch.log_softmax(kept, -1).sort(dim=-1, descending=True)
        p = ordered.exp()
        before = p.cumsum(-1) - p  # mass of the strictly better tokens
        cut = torch.zeros_like(kept, dtype=torch.bool).scatter(-1, order, before >= top_p)
        kept = kept.masked_fill(cut, -torch.inf)
    return torch.log_softmax(kept, -1)


def draw(logprobs_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Inverse-transform sampling: the first token whose cumulative probability exceeds u; never one of probability 0.

    Args:
        logprobs_BV: normalised log-probabilities, -inf allowed. uniform_B: float64 in (0, 1).
    """
    cumulative = logprobs_BV.to(torch.float64).exp().cumsum(-1)
    target = uniform_B[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=logprobs_BV.shape[-1] - 1)
