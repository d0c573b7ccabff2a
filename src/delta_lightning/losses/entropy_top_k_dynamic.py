"""Forking tokens under the current policy: only the tokens of highest entropy are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.selection import share_count, token_keys, top_bound, top_mask, within_bound
from delta_lightning.functional.token_order import significant
from delta_lightning.interfaces import StepView, TokenWeighting
from delta_lightning.types import Experience, Need, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class EntropyTopKDynamic(TokenWeighting):
    """Weight 1 on the ceil(share * N) tokens of highest entropy of the mini-batch, 0 on the others; at every update.

    Wang et al., "Beyond the 80/20 rule" (arXiv 2506.01939). Entropies are the current policy's, in nats over the whole
    vocabulary; N counts the trained tokens of the optimiser step over all its micro-batches and ranks, where TRL takes a
    quantile per micro-batch, over ranks. Entropies that agree to 16 significant bits (36 in float64) are ties, such as those of
    the first tokens of one prompt's answers; of ties the first in the order of sequences and positions stay, so that the number
    is met exactly, however the work is cut. Costs one forward pass of the mini-batch per update; the static `EntropyTopK`
    credit does not.

    Args:
        share: of the tokens to train on, above 0, at most 1.
        denominator: "kept" takes the others out of the mask: a token mean divides by the tokens kept (the paper's eq. 6), and
            penalties see those tokens only. "all" gives them weight 0 and leaves every denominator (TRL): the gradient of a
            token mean is smaller by the share, and penalties see all tokens.

    Raises:
        ConfigError: a field out of range.
    """

    share: float = 0.2
    denominator: Literal["kept", "all"] = "kept"

    def __post_init__(self) -> None:
        remedy = "The usual value is 0.2."
        require(0 < self.share <= 1, "weighting.share", wanted="above 0, at most 1", got=self.share, remedy=remedy)
        require(
            self.denominator in ("kept", "all"),
            "weighting.denominator",
            wanted="kept or all",
            got=self.denominator,
            remedy="The paper divides by the tokens kept.",
        )

    def needs(self) -> frozenset[Need]:
        """Entropies, and a pass over the mini-batch."""
        return frozenset({Need.MINI_BATCH, Need.ENTROPY})

    def statistics(self, experience: Experience, view: StepView) -> Statistics | None:
        """The bound of the selection, `threshold` and `last_key`; the number of tokens `kept`; the mask for "kept"."""
        mask_BT = experience.batch.loss_mask_BT
        entropies_BT = torch.zeros(mask_BT.shape, dtype=torch.float64, device=mask_BT.device)
        for rows, scores in view.passes():
            entropies_BT[rows] = entropies_of(scores)
        keys_BT = token_keys(experience.batch.sequence_ids_B, mask_BT.shape[1])
        entropies_N, keys_N = view.gather(entropies_BT[mask_BT]), view.gather(keys_BT[mask_BT])
        count = share_count(self.share, len(entropies_N))
        threshold, last_key = top_bound(entropies_N, keys_N, count)
        values = {"threshold": threshold, "last_key": last_key, "kept": torch.tensor(float(count))}
        if self.denominator == "all":
            return Statistics(values=values)
        keep_BT = torch.zeros_like(mask_BT)
        keep_BT[mask_BT] = view.own(top_mask(entropies_N, count))
        return Statistics(values=values, keep_BT=keep_BT)

    @torch.no_grad()
    def weights(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T] of 0 and 1, in the dtype of the scores, 0 outside the mask."""
        mask_BT = experience.batch.loss_mask_BT
        if self.denominator == "all":
            assert statistics is not None, "the selection is made over the mini-batch, which needs() asks for"
            keys_BT = token_keys(experience.batch.sequence_ids_B, mask_BT.shape[1])
            bound = (statistics.values["threshold"], statistics.values["last_key"])
            mask_BT = mask_BT & within_bound(entropies_of(scores), keys_BT, bound)
        return mask_BT.to(scores.logprobs_BT.dtype)


def entropies_of(scores: TokenScores) -> Tensor:
    """The entropies as they are ranked, float64, detached."""
    assert scores.entropies_BT is not None, "needs() asks for entropies"
    return significant(scores.entropies_BT.detach())
