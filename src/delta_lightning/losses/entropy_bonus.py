"""A bonus on the policy's entropy."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.interfaces import Penalty
from delta_lightning.types import Experience, Need, TokenScores


@dataclass(frozen=True, kw_only=True)
class EntropyBonus(Penalty):
    """-coefficient * H per token, H the exact entropy in nats of the current policy over the whole vocabulary, with gradient.

    Mnih et al., arXiv 1602.01783. H is at the sampling temperature. The bonus is added after credit, weighting and correction
    and reduced like the loss. It raises the entropy at every trained token alike, those included where one continuation is
    right; DAPO and DelTA use none. The entropy costs the head one more reduction over the vocabulary, no further product.

    Args:
        coefficient: finite; above 0 raises the entropy, below 0 lowers it. The default is verl's former one.

    Raises:
        ConfigError: a field out of range.
    """

    coefficient: float = 0.001

    def __post_init__(self) -> None:
        require(
            abs(self.coefficient) < float("inf"),
            "penalty.coefficient",
            wanted="a finite number",
            got=self.coefficient,
            remedy="The usual value is 0.001; without the bonus leave the part out.",
        )

    def needs(self) -> frozenset[Need]:
        """Entropies."""
        return frozenset({Need.ENTROPY})

    def per_token(self, experience: Experience, scores: TokenScores) -> Tensor:
        """[B, T], 0 outside the mask."""
        if scores.entropies_BT is None:
            raise ValueError("EntropyBonus: the scores hold no entropies, which needs() asks for")
        return -self.coefficient * scores.entropies_BT * experience.batch.loss_mask_BT
