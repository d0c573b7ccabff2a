"""Only a share of the tokens is trained on, chosen by another assigner's scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.credit.scopes import Denominator, Scope, check_scope, check_selection, kept_scale, kept_share
from delta_lightning.credit.wrapper import Wrapper
from delta_lightning.errors import require
from delta_lightning.functional.token_order import significant
from delta_lightning.interfaces import NOTHING, StepView
from delta_lightning.types import Credit, Need


@dataclass(frozen=True, kw_only=True)
class Mask(Wrapper):
    """Scale 1 (or N / kept) on the ceil(share n) tokens of largest scale of each scope of n tokens, 0 on the others.

    The token selection of DelTA (Zhang et al., arXiv 2605.21467, figures 3 and 4, share 0.5), for any assigner. Its scale only
    ranks. Scales that agree to 16 significant bits (36 in float64) are ties; of ties the first in the order of sequences and
    positions stays, so that counts are met exactly, on any number of ranks.

    The paper does not say among which tokens it ranks, nor what it divides by; both are fields. Ranked in the whole batch,
    DelTA's tokens with A = 0 come last, since they get its least coefficient: `bottom` then keeps tokens that train nothing.
    `scope: side` compares among tokens that do.

    Args:
        assigner: gives the scale to rank by; any credit assigner without a shift. Not asked if `keep` is random.
        share: of the tokens to keep, above 0, at most 1. At 1 all tokens get 1 and nothing is computed.
        keep: "top", "bottom", or "random", tokens by keyed random numbers.
        scope: among which tokens: batch (all trained tokens of all ranks), side (A > 0, A < 0 and A = 0 each for themselves),
            group (of one prompt), sequence (of one response).
        denominator: "kept" gives kept tokens N / kept, so that a token mean divides by the kept ones, counted over the rollout
            step; "all" gives them 1 (TRL's top-entropy quantile divides so). "all" with the reduction `WeightedMean` divides
            by the kept ones of each optimiser step.
        draw: number of the random draw; two parts with the same number keep the same tokens.

    Raises:
        ConfigError: a field out of range, or an assigner with a shift, which a scale does not rank.
    """

    share: float = 0.5
    keep: Literal["top", "bottom", "random"] = "top"
    scope: Scope = "batch"
    denominator: Denominator = "kept"
    draw: int = 0

    def __post_init__(self) -> None:
        check_scope("Mask", self.scope)
        check_selection("Mask", self.share, self.denominator, remedy="DelTA's figures use 0.5.")
        fine, remedy = self.keep in ("top", "bottom", "random"), "top keeps the largest scales."
        require(fine, "credit.Mask.keep", wanted="top, bottom or random", got=self.keep, remedy=remedy)
        require(
            self.keep == "random" or not self.assigner.additive(),
            "credit.Mask.assigner",
            wanted="an assigner whose scale ranks tokens",
            got=f"{type(self.assigner).__name__}, which adds to the advantage",
            remedy="Use a multiplicative assigner such as Delta, or the multiplicative form of this one if it has one.",
        )

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """0 or one value above 0, [B, T]."""
        if self.share == 1:
            return Credit(scale_BT=view.batch.loss_mask_BT.float())
        scores_BT, dtype = self._scores_BT(view)
        kept_BT = kept_share(view, self.scope, scores_BT, self.share)
        return Credit(scale_BT=kept_scale(view, kept_BT, self.denominator, dtype))

    def _scores_BT(self, view: StepView) -> tuple[Tensor, torch.dtype]:
        if self.keep == "random":
            return view.uniform(f"credit.Mask {self.draw}"), torch.float32
        scale_BT, _ = self.inner(view)
        score_BT = significant(scale_BT)
        return score_BT if self.keep == "top" else -score_BT, scale_BT.dtype

    def _ranks(self) -> bool:
        """Whether the assigner inside is asked."""
        return self.keep != "random" and self.share < 1

    def needs(self) -> frozenset[Need]:
        """What the assigner inside needs, if it is asked."""
        return self.assigner.needs() if self._ranks() else NOTHING

    def cut_dependent(self) -> bool:
        """As the assigner inside, if it is asked."""
        return self._ranks() and self.assigner.cut_dependent()

    def token_level(self) -> bool:
        """Unless all tokens are kept."""
        return self.share < 1

    def per_response(self) -> bool:
        """As the assigner inside, if it is asked."""
        return self._ranks() and self.assigner.per_response()

    def additive(self) -> bool:
        """No shift is left."""
        return False
