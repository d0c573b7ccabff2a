"""REINFORCE++: rewards whitened over the whole rollout step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.advantages.whitening import Whitening
from delta_lightning.interfaces import StepView


@dataclass(frozen=True, kw_only=True)
class ReinforcePlusPlus(Whitening):
    """A = (R - mean) / sqrt(variance + eps) over the rollout step, all prompts and ranks (Hu et al., arXiv 2501.03262), [B].

    No group is needed: one completion per prompt will do. The return of each token is the reward of its answer (discount 1).
    A KL penalty inside the reward is not part of it: add a KL penalty to the loss instead. Prompts differ in difficulty, and
    the one mean of all of them rewards an average answer to an easy prompt.

    Rewards within 1e-6 of the mean get exactly 0, and so do rows without a verdict or without a trained token.

    Args:
        counted: what mean and variance are taken over: "tokens", each trained token with its answer's reward, so that long
            answers weigh more (as published code does), or "responses", each answer once.
        std: "unbiased" (n - 1, as in verl) or "population" (n, as in OpenRLHF), n the number of what is counted.
        eps: added to the variance, in squared units of the reward; at least 0.

    Raises:
        ConfigError: a field out of range.
    """

    def advantages(self, view: StepView) -> Tensor:
        """[B], in the dtype of the rewards. Two collectives."""
        return self.whitened(view, view.batch.rewards_B)
