"""Uncertain tokens get a larger advantage, bounded so that no sign turns."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.credit.scopes import advantages_of
from delta_lightning.credit.token_values import token_values
from delta_lightning.errors import require
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit, Need


@dataclass(frozen=True, kw_only=True)
class EntropyAdvantage(CreditAssigner):
    """Token advantage A + min(alpha H, |A| / kappa), H the token's entropy in nats (Cheng et al., arXiv 2506.14758).

    With kappa > 1 the sign of A stays, so the same is a factor: scale = 1 + sign(A) min(alpha H / |A|, 1 / kappa), between
    1 - 1 / kappa and 1 + 1 / kappa. Where A = 0 the bonus is 0 and the scale 1. A right answer's uncertain tokens gain, a wrong
    one's are punished less; nothing restores the mean. With an advantage per token the formula is per token.

    H is taken under theta_old, once for all updates of the rollout step. The paper takes the current policy's at each update:
    the same at the first update, not at later ones. Entropies below 0 by rounding count as 0.

    Args:
        alpha: per nat, in units of the advantage, at least 0; the paper's 0.4 for GRPO (0.1 for PPO). At 0 nothing is computed.
        kappa: the bonus is at most |A| / kappa; above 1.

    Raises:
        ConfigError: a field out of range.
    """

    alpha: float = 0.4
    kappa: float = 2.0

    def __post_init__(self) -> None:
        alpha, kappa = self.alpha, self.kappa
        require(alpha >= 0, "credit.EntropyAdvantage.alpha", wanted="at least 0", got=alpha, remedy="The paper uses 0.4.")
        require(kappa > 1, "credit.EntropyAdvantage.kappa", wanted="above 1, so that no advantage turns its sign", got=kappa,
                remedy="The paper uses 2.")  # fmt: skip

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """[B, T], in the dtype of the scores."""
        mask_BT = view.batch.loss_mask_BT
        if self.alpha == 0:
            return Credit(scale_BT=mask_BT.float())
        entropies_BT = token_values(view, lambda scores: scores.entropies_BT)
        advantages = advantages_of(view).double()
        size = torch.where(advantages == 0, 1.0, advantages.abs())  # anything but 0: the sign below is 0 there
        bonus_BT = (self.alpha * entropies_BT.double().clamp(min=0) / size).clamp(max=1 / self.kappa)
        return Credit(scale_BT=((1 + advantages.sign() * bonus_BT) * mask_BT).to(entropies_BT.dtype))

    def needs(self) -> frozenset[Need]:
        """Entropies, unless alpha is 0."""
        return frozenset({Need.ENTROPY}) if self.alpha else frozenset()

    def token_level(self) -> bool:
        """Unless alpha is 0."""
        return self.alpha > 0
