"""The entropy advantage, token by token, from its additive formula."""

from __future__ import annotations


def token_advantage(advantage: float, entropy: float, *, alpha: float, kappa: float) -> float:
    return advantage + min(alpha * max(entropy, 0.0), abs(advantage) / kappa)
