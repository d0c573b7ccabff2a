"""Where the hidden states of the one scoring pass live until credit has been assigned: chosen from byte budgets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.models.scorer import Scorer
from delta_lightning.trainer.ranks import Ranks


class Place(IntEnum):
    """From the fastest to the leanest."""

    DEVICE = 0  # beside the model
    HOST = 1  # main memory, page-locked where there is a GPU
    RECOMPUTED = 2  # nowhere: a forward pass at every use


@dataclass(frozen=True, kw_only=True)
class HiddenCache:
    """Budgets for the hidden states of trained tokens, on each rank. Where they live does not change the result.

    They are kept beside the model if they fit `device_gib`, else in main memory if they fit `host_gib`, else computed again at
    each use, which costs a forward pass each time. All ranks do the same: what the tightest of them must.

    Args:
        device_gib: beside the model, GiB; at least 0. host_gib: in main memory, GiB; at least 0.
        dtype: "model" keeps the model's own dtype, so nothing is lost; "bfloat16" halves a float32 model's cache. On small
            random models that moved DelTA's coefficients by up to 0.0051 (0.0001 in the mean), but single tokens by up to
            0.13 with `TopKHiddenGradient`, and with hard gates from one end of the range to the other.
    """

    device_gib: float = 8.0
    host_gib: float = 32.0
    dtype: Literal["model", "bfloat16", "float32"] = "model"

    def __post_init__(self) -> None:
        for name, value in (("device_gib", self.device_gib), ("host_gib", self.host_gib)):
            require(value >= 0, f"cache.{name}", wanted="at least 0", got=value, remedy="0 for both always recomputes.")

    def place(self, tokens: int, scorer: Scorer, ranks: Ranks) -> Place:
        """Where `tokens` hidden states of this rank go. Collective: under sharding ranks must forward equally often."""
        size = self.bytes(tokens, scorer) / 2**30
        mine = Place.DEVICE if size <= self.device_gib else Place.HOST if size <= self.host_gib else Place.RECOMPUTED
        chosen = torch.zeros(len(Place), device=scorer.device)
        chosen[mine] = 1
        return Place(int(ranks.all_sum(chosen).nonzero().max()))

    def store(self, hidden_ND: Tensor, place: Place) -> Tensor:
        """The hidden states as they are kept; rounded the same way wherever they live."""
        dtype = hidden_ND.dtype if self.dtype == "model" else getattr(torch, self.dtype)
        narrow: Tensor = hidden_ND.to(dtype)
        if place is not Place.HOST:
            return narrow
        kept = torch.empty(narrow.shape, dtype=dtype, pin_memory=narrow.is_cuda)
        return kept.copy_(narrow)

    def bytes(self, tokens: int, scorer: Scorer) -> int:
        """Bytes that `tokens` hidden states take."""
        size = {"model": scorer.hidden_itemsize, "bfloat16": 2, "float32": 4}[self.dtype]
        return tokens * scorer.hidden_width * size
