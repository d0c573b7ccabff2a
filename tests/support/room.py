"""A device without room for large passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def refusing(owner: Any, name: str, *, call: int = 1, times: int = 1, rank: int | None = None) -> Iterator[None]:
    """`owner.name` runs out of memory from its `call`-th call on, `times` times."""
    original, made = getattr(owner, name), 0

    def refused(*args: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        if call <= made < call + times and rank in (None, Ranks.current().rank):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, refused)
        yield
    assert made >= call, f"{name} was not called often enough to fail"
