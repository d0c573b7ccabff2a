"""Only forking tokens are trained on: those of highest entropy."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.credit.scopes import Denominator, check_selection, kept_scale, kept_share
from delta_lightning.credit.token_values import token_values
from delta_lightning.functional.token_order import significant
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit, Need


@dataclass(frozen=True, kw_only=True)
class EntropyTopK(CreditAssigner):
    """Scale 1 (or N / kept) on the ceil(share N) tokens of highest entropy under theta_old, 0 on the others.

    Forking tokens, the 80/20 rule (Wang et al., arXiv 2506.01939, equation 6; share 0.2). Chosen among the trained tokens of
    the rollout step, on all ranks. Entropies that agree to 16 significant bits (36 in float64) are ties, such as those of the
    first tokens of one prompt's answers; of ties the first in the order of sequences and positions stays: the count is exact.

    Static: chosen once, under the policy that sampled. The paper and TRL choose anew at each update, under the current policy:
    that is the weighting `EntropyTopKDynamic`, which costs a forward pass more per update.

    Args:
        share: of the tokens to keep, above 0, at most 1. At 1 all tokens get 1 and nothing is computed.
        denominator: "kept" gives kept tokens N / kept, so that a token mean divides by the kept ones (the paper's equation,
            counted over the rollout step); "all" gives them 1 (TRL).

    Raises:
        ConfigError: a field out of range.
    """

    share: float = 0.2
    denominator: Denominator = "kept"

    def __post_init__(self) -> None:
        check_selection("EntropyTopK", self.share, self.denominator, remedy="0.2 is published.")

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """0 or one value above 0, [B, T]."""
        mask_BT = view.batch.loss_mask_BT
        if self.share == 1:
            return Credit(scale_BT=mask_BT.float())
        entropies_BT = token_values(view, lambda scores: scores.entropies_BT)
        kept_BT = kept_share(view, "batch", significant(entropies_BT), self.share)
        return Credit(scale_BT=kept_scale(view, kept_BT, self.denominator, entropies_BT.dtype))

    def needs(self) -> frozenset[Need]:
        """Entropies, unless all tokens are kept."""
        return frozenset() if self.share == 1 else frozenset({Need.ENTROPY})

    def token_level(self) -> bool:
        """Unless all tokens are kept."""
        return self.share < 1
