"""LUSPO: GSPO without its weight of 1 / length."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.losses.gspo import GSPO


@dataclass(frozen=True, kw_only=True)
class LUSPO(GSPO):
    """`GSPO`'s loss on each token, to be **summed** over the sequence: length times GSPO's sequence loss.

    Length-unbiased sequence policy optimisation (arXiv 2602.05261; formula as in TRL's `loss_type="luspo"`). The factor, the
    sequence's length, is the reduction's: the sequence mean of sums (`SequenceSum`) is the published loss, the token mean is
    the same divided by the step's mean length, which keeps the size of the loss; under the sequence mean of token means this
    is `GSPO`. Lengths tend to grow under it. Token-level credit is refused.

    Args:
        clip_low: how far s may fall below 1 before a sequence with A < 0 stops pushing; between 0 and 1 (section 5.1).
        clip_high: how far s may rise above 1 before a sequence with A > 0 stops pushing; at least 0 (section 5.1).
        log_ratio_clamp: bound on |log s|, nats, above 0; beyond it a sequence has no gradient.

    Raises:
        ConfigError: a field out of range.
    """

    clip_low: float = 2e-3
    clip_high: float = 2.5e-3
    log_ratio_clamp: float = 10.0
