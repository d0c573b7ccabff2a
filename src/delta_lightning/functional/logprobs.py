"""From hidden states to log-probabilities: the only file that shifts, and the head that never holds [N, V].

Token t is predicted by the hidden state at t - 1. `predicting_states` makes that shift once; everything after it is
token-aligned.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


def predicting_states(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The hidden states that predicted the masked tokens, [N, D], rows in order and tokens in order.

    Args:
        hidden_BTD: the LM head's inputs, position t having read tokens 0..t.
        mask_BT: bool, True at the tokens wanted; column 0 must be False, since nothing predicts the first token.
    """
    if bool(mask_BT[:, 0].any()):
        raise ValueError("the first token of a row has no prediction: its mask must be False")
    return hidden_BTD[:, :-1][mask_BT[:, 1:]]


def masked_tokens(token_ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The token ids where the mask is True, [N], in the order of `predicting_states`."""
    return token_ids_BT[mask_BT]


def scatter_tokens(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """[N] back to [B, T], 0 elsewhere; differentiable."""
    out = values_N.new_zeros(mask_BT.shape)
    return out.masked_scatter(mask_BT, values_N)


class HeadOutput(NamedTuple):
    """Per token: log-probability and entropy in nats, and the sum over the vocabulary of p squared."""

    logprobs_N: Tensor
    entropies_N: Tensor
    sum_p_squared_N: Tensor


def chunk_tokens(vocabulary: int, budget_bytes: int) -> int:
    """Tokens whose float32 logits fit the budget; at least 1."""
    return max(1, budget_bytes // (4 * vocabulary))


def head_logits(hidden_ND: Tensor, weight_VD: Tensor, temperature: float) -> Tensor:
    """Logits at the sampling temperature, float32 (float64 for float64 inputs), [N, V]. The caller keeps N small."""
    logits = hidden_ND @ weight_VD.to(hidden_ND.dtype).T
    return logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature


class _ChunkedHead(torch.autograd.Function):
    """Log-probability and entropy of each token, logits recomputed in the backward pass, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, chunk: int, full: bool) -> Any:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        logprobs = torch.empty(len(targets), dtype=wide, device=hidden.device)
        entropies, squares = torch.zeros_like(logprobs), torch.zeros_like(logprobs)
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            log_p = torch.log_softmax(head_logits(hidden[part], weight, temperature), dim=-1)
            logprobs[part] = log_p.gather(-1, targets[part, None])[:, 0]
            if full:
                p = log_p.exp()
                entropies[part] = -(p * log_p).sum(-1)
                squares[part] = p.square().sum(-1)
        ctx.save_for_backward(hidden, weight, targets, entropies)
        ctx.temperature, ctx.chunk, ctx.full = temperature, chunk, full
        ctx.mark_non_differentiable(squares)
        ctx.set_materialize_grads(False)
        return logprobs, entropies, squares

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        grad_logprobs, grad_entropies, _ = grads
        hidden, weight, targets, entropies = ctx.saved_tensors
        grad_hidden = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        # Summed over chunks in float32 at least: bf16 would lose the small contributions of late chunks.
        grad_weight = torch.zeros_like(weight, dtype=entropies.dtype) if ctx.needs_input_grad[1] else None
        for start in range(0, len(targets), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            log_p = torch.log_softmax(head_logits(hidden[part], weight, ctx.temperature), dim=-1)
            p = log_p.exp()
            grad_logits = torch.zeros_like(p)
            if grad_logprobs is not None:
                grad_logits.sub_(p * grad_logprobs[part, None])
                grad_logits.scatter_add_(1, targets[part, None], grad_logprobs[part, None])
            if grad_entropies is not None and ctx.full:
                grad_logits.sub_(p * (log_p + entropies[part, None]) * grad_entropies[part, None])
            grad_logits.div_(ctx.temperature)
            narrow = grad_logits.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = narrow @ weight.to(hidden.dtype)
            if grad_weight is not None:
                grad_weight.add_(narrow.T @ hidden[part])
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None


def chunked_head(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int = 1024,
    with_entropy: bool = False,
) -> HeadOutput:
    """log p(y) = z_y - logsumexp(z), z = W h / temperature; H = -sum p log p; differentiable in h and W.

    Logits exist for `chunk` tokens at a time, in the forward and in the backward pass, which recomputes them:
    peak memory is chunk * V, whatever N. The gradient is that of the formula: d log p(y) / dz = e_y - p,
    dH / dz = -p (log p + H).

    Args:
        hidden_ND: inputs of the LM head. weight_VD: its weight. targets_N: int64 token ids.
        temperature: of the sampling distribution. chunk: tokens at a time; results differ by rounding only.
        with_entropy: also fill entropies and sums of p squared (zeros otherwise).
    """
    return HeadOutput(*_ChunkedHead.apply(hidden_ND, weight_VD, targets_N, temperature, chunk, with_entropy))  # type: ignore[no-untyped-call]
