"""A device without room for large passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from delta_lightning.models.scorer import Scorer
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Need, RolloutBatch, TokenScores


@contextmanager
def room(tokens: int, times: int = 1000, rank: int | None = None) -> Iterator[None]:
    """Passes over more than `tokens` positions fail, the first `times`."""
    original, failed = Scorer.score, 0

    def score(self: Scorer, batch: RolloutBatch, needs: frozenset[Need]) -> TokenScores:
        nonlocal failed
        size = self.layout.cost(batch.attention_mask_BT.sum(1).tolist())
        if size > tokens and failed < times and rank in (None, Ranks.current().rank):
            failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(self, batch, needs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "score", score)
        yield
