"""What the training model gives to given sequences: the yardstick of every sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from delta_lightning.functional.logprobs import chunk_tokens, chunked_head, predicting_states
from delta_lightning.models.scorer import HEAD_BUDGET
from delta_lightning.models.sharding import device_of, enter


@torch.no_grad()
def sequence_logprobs(model: Any, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
    """Log-probabilities at temperature 1 of tokens 1.. of each sequence, nats, [len - 1]. Collective under sharding."""
    return [enter(model, _logprobs, torch.tensor([list(ids)], device=device_of(model))) for ids in sequences]


def _logprobs(model: Any, tokens_BT: Tensor) -> Tensor:
    mask_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    mask_BT[:, 0] = False
    hidden_BTD = model.model(input_ids=tokens_BT, use_cache=False).last_hidden_state
    weight_VD = model.lm_head.weight
    chunk = chunk_tokens(weight_VD.shape[0], HEAD_BUDGET)
    return chunked_head(predicting_states(hidden_BTD, mask_BT), weight_VD, tokens_BT[0, 1:], chunk=chunk).logprobs_N
