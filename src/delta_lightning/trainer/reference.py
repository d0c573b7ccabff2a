"""The reference policy of KL penalties: frozen, sharded over ranks, outside the trained module's tree."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from delta_lightning.models.adapted import adapter_of, adapter_off
from delta_lightning.models.layout import RowLayout
from delta_lightning.models.padded import Padded
from delta_lightning.models.scorer import Scorer
from delta_lightning.models.sharding import Sharding, sharding_of
from delta_lightning.models.spreading import twin
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Need, RolloutBatch, TokenScores


class ReferencePolicy:
    """A frozen copy of the policy as it was when it was loaded, before any checkpoint is restored into it.

    It is no part of the module: no optimiser, checkpoint, gradient synchronisation or weight update sees it. With several
    ranks it is sharded like a policy under FSDP2 (`models/sharding.py`, one all-gather per layer and pass), whatever the
    strategy. Every rank must therefore score equally often.

    Of a policy with an adapter nothing is copied: its base is frozen, and is the reference with the adapter turned off.

    Args:
        policy: the causal LM that is copied. device: where the copy goes. ranks: who shares the layers.
    """

    def __init__(self, policy: Any, *, device: torch.device, ranks: Ranks) -> None:
        if adapter_of(policy) is not None:
            self._model = policy
            return
        if sharding_of(policy) is not None:
            self._model = twin(policy).requires_grad_(False)
            return
        model = copy.deepcopy(policy).requires_grad_(False).eval()
        if ranks.size > 1:
            from torch.distributed.device_mesh import init_device_mesh

            Sharding(mesh=init_device_mesh(device.type, (ranks.size,))).apply(model)
        self._model = model.to(device)  # not before: sharding moves one layer at a time, the whole model may not fit

    def scorer(self, temperature: float, layout: RowLayout = Padded()) -> Scorer:  # noqa: B008
        """The reference as a scorer at the sampling temperature."""
        kind = Scorer if adapter_of(self._model) is None else _BaseScorer
        return kind(model=self._model, temperature=temperature, layout=layout)

    def bytes(self) -> int:
        """Bytes of parameters on this rank, beyond the policy's own."""
        if adapter_of(self._model) is not None:
            return 0
        local = (p.to_local() if hasattr(p, "to_local") else p for p in self._model.parameters())
        return sum(value.numel() * value.element_size() for value in local)


@dataclass(frozen=True, kw_only=True)
class _BaseScorer(Scorer):
    """Scores with the base of a model that has an adapter."""

    def score(self, batch: RolloutBatch, needs: frozenset[Need]) -> TokenScores:
        """As the model scored before it was trained; without gradient."""
        with adapter_off(self.model):
            return super().score(batch, needs)
