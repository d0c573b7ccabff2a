"""A penalty on the divergence from a frozen reference policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.divergences import Estimator, kl_estimate
from delta_lightning.interfaces import Penalty
from delta_lightning.types import Experience, Need, TokenScores


@dataclass(frozen=True, kw_only=True)
class KL(Penalty):
    """coefficient * estimate of KL(policy, reference) per token, nats; with x = log p_ref - log p:

        k1 = -x. Its gradient has expectation 0 on fresh samples: as a term of the loss it adds noise and no pull.
        k2 = x^2 / 2. Biased as a value; on fresh samples its gradient is that of KL(policy, reference).
        k3 = e^x - x - 1. Unbiased as a value and never negative; its gradient on fresh samples is that of
            KL(reference, policy), and large where the policy has left tokens of the reference. GRPO's choice.
        unbiased = r k3, r = pi / pi_old with its gradient: value and gradient of KL(policy, reference) are unbiased for
            samples of pi_old (DeepSeek-V3.2, arXiv 2512.02556).

    Estimators: J. Schulman, "Approximating KL divergence", 2020. Gradients: Tang and Munos, arXiv 2506.09477; Liu et al., arXiv
    2510.01555. All are divergences of one token's distribution at its context; that a token changes the contexts of later ones
    is in none of them. The penalty is added after credit, weighting and correction, which do not change it, and reduced like
    the loss; a part that takes tokens out of the mask takes them out of the penalty. The default is GRPO's (Shao et al., arXiv
    2402.03300); DAPO, Dr. GRPO and DelTA use none.

    Args:
        estimator: k1, k2, k3 or unbiased.
        coefficient: at least 0, factor per nat.
        log_ratio_clamp: bound, nats, above 0, on x from above in k3 and unbiased and on |log r|; beyond it no gradient.

    Raises:
        ConfigError: a field out of range.
    """

    estimator: Estimator = "k3"
    coefficient: float = 0.04
    log_ratio_clamp: float = 20.0

    def __post_init__(self) -> None:
        names = get_args(Estimator)
        require(
            self.estimator in names,
            "penalty.estimator",
            wanted=f"one of {', '.join(names)}",
            got=self.estimator,
            remedy="GRPO uses k3.",
        )
        require(
            0 <= self.coefficient < float("inf"),
            "penalty.coefficient",
            wanted="at least 0",
            got=self.coefficient,
            remedy="GRPO uses 0.04; usual values are 0.001 to 0.04.",
        )
        require(
            self.log_ratio_clamp > 0,
            "penalty.log_ratio_clamp",
            wanted="above 0, nats",
            got=self.log_ratio_clamp,
            remedy="The usual value is 20.",
        )

    def needs(self) -> frozenset[Need]:
        """The reference policy."""
        return frozenset({Need.REFERENCE})

    def per_token(self, experience: Experience, scores: TokenScores) -> Tensor:
        """[B, T], 0 outside the mask."""
        reference_BT = experience.reference_logprobs_BT
        if reference_BT is None:
            raise ValueError("KL: the experience holds no log-probabilities of a reference policy, which needs() asks for")
        mask_BT = experience.batch.loss_mask_BT
        # A mask that shrank leaves old and reference log-probabilities where the scores are 0: all three are cut alike.
        estimate_BT = kl_estimate(
            self.estimator,
            scores.logprobs_BT * mask_BT,
            (reference_BT * mask_BT).to(scores.logprobs_BT.dtype),
            experience.old_logprobs_BT * mask_BT,
            clamp=self.log_ratio_clamp,
        )
        return self.coefficient * estimate_BT
