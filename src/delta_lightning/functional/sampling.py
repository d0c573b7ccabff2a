"""The distribution that a token is drawn from, and the draw."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 256  # tokens that are summed before anything is added up in float64


def warp_logits(logprobs_BV: Tensor, *, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0) -> Tensor:
    """Log-probabilities after top-k, top-p and min-p, in this order, renormalised; -inf where cut.

    The order is that of `transformers.generate`. Top-k keeps the k most probable tokens and what ties with the last.
    Top-p (nucleus sampling, arXiv:1904.09751) keeps the smallest set of most probable tokens whose mass reaches `top_p`. Min-p
    (arXiv:2407.01082) keeps tokens of at least `min_p` times the largest probability. The most probable token is always kept.

    Args:
        logprobs_BV: log-probabilities, -inf allowed; normalised, unless something is cut away.
        top_p: in (0, 1]. top_k: 0 keeps all. min_p: in [0, 1); 0 keeps all.
    """
    if top_k <= 0 and top_p >= 1.0 and min_p <= 0.0:
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
    if min_p > 0.0:
        floor = kept.amax(-1, keepdim=True) + torch.tensor(min_p, dtype=kept.dtype).log()
        kept = kept.masked_fill(kept < floor, -torch.inf)
    return torch.log_softmax(kept, -1)


def draw(logprobs_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Inverse-transform sampling: the first token whose cumulative probability exceeds u; never one of probability 0.

    Sums are float64, over blocks of tokens first and then inside the block that was hit: a large vocabulary is read once.

    Args:
        logprobs_BV: normalised log-probabilities, -inf allowed. uniform_B: float64 in (0, 1).
    """
    rows, vocabulary = logprobs_BV.shape
    blocks = -(-vocabulary // BLOCK)
    p_BV = logprobs_BV.new_zeros(rows, blocks * BLOCK)
    torch.exp(logprobs_BV, out=p_BV[:, :vocabulary])
    p_BKL = p_BV.view(rows, blocks, BLOCK)
    mass_BK = p_BKL.sum(-1, dtype=torch.float64).cumsum(-1)
    target_B = uniform_B * mass_BK[:, -1]
    block_B = torch.searchsorted(mass_BK, target_B[:, None], right=True)[:, 0].clamp(max=blocks - 1)
    index_B = torch.arange(rows, device=block_B.device)
    inside_BL = p_BKL[index_B, block_B]
    target_B = target_B - mass_BK[index_B, block_B] + inside_BL.sum(-1, dtype=torch.float64)
    chosen_B = torch.searchsorted(inside_BL.to(torch.float64).cumsum(-1), target_B[:, None], right=True)[:, 0]
    last_B = BLOCK - 1 - (inside_BL > 0).flip(-1).int().argmax(-1)  # rounding may leave the target beyond the block's mass
    return (block_B * BLOCK + torch.minimum(chosen_B, last_B)).clamp(max=vocabulary - 1)  # rows of NaN have no last token
