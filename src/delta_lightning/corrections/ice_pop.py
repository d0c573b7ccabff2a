"""IcePop: masked importance sampling with the bounds of Ring-1T."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.corrections.masked_importance import MaskedImportance


@dataclass(frozen=True, kw_only=True)
class IcePop(MaskedImportance):
    """w = rho where low <= rho <= high, rho = pi_old / mu of the token; a token outside is dropped (arXiv 2510.18855).

    `MaskedImportance` with the paper's bounds on both sides, made for mixture-of-experts models. The paper's objective gives a
    dropped token weight 0 and divides by all tokens of the answer; here it leaves the mask, so it leaves the denominators too,
    and the gradient is larger by all / kept tokens. The denominators are the `reduction`'s, not the paper's 1 / length.

    Args:
        low: the paper's alpha, smallest ratio kept, at least 0 and below 1.
        high: the paper's beta, largest ratio kept, above 1.
        against: mu. "behaviour": the distribution really sampled from; "raw": before top-p and top-k cut it.
        log_ratio_clamp: bound on |log rho|, nats, above 0; |log rho| beyond it counts as the clamp.

    Raises:
        ConfigError: a field out of range.
    """

    low: float = 0.5
    high: float = 5.0
