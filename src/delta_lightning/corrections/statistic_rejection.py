"""Drops tokens or whole sequences on which trainer and sampler differ too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from delta_lightning.corrections.log_ratio import Against, check_fields, sampler_log_ratio
from delta_lightning.errors import require
from delta_lightning.functional.corrections import Estimator, divergence, row_statistic
from delta_lightning.interfaces import RolloutCorrection, StepView
from delta_lightning.types import Correction


@dataclass(frozen=True, kw_only=True)
class StatisticRejection(RolloutCorrection):
    """Weight 1 where low <= statistic <= high; what is outside leaves the mask: tokens, or whole sequences.

    The statistic estimates KL(mu || pi_old), nats, from d = log pi_old - log mu of each token: k1 = -d, k2 = d^2 / 2,
    k3 = exp(d) - 1 - d. It is taken per token, or as sum, mean or maximum over the sequence. This is the rejection sampling of
    verl (`rollout_rs`; J. Liu et al., "When Speed Kills Stability", 2025, richardli.xyz/rl-collapse); the defaults are those
    of its `k3_rs` presets. verl gives the bounds of k1 as ratios, here all bounds are nats: its "geometric" rejection
    0.999_1.001 is `{estimator: k1, over: mean, low: -0.001, high: 0.001}`. An answer that is rejected has already entered its
    group's baseline, where it stays. Add importance weights with `CombinedCorrection`.

    Args:
        estimator: "k1" (signed), "k2" or "k3" (never negative).
        over: "token" drops tokens; "sum", "mean" and "max" over a sequence's tokens in the mask drop sequences.
        low: smallest statistic kept, nats; null for none. Only with k1, and not over "max": the others are best at 0.
        high: largest statistic kept, nats, at least 0.
        against: mu. "behaviour": the distribution really sampled from; "raw": before top-p and top-k cut it, for which no
            kept mass is taken for divergence.
        log_ratio_clamp: bound on |d| of each token, nats, above 0.

    Raises:
        ConfigError: a field out of range.
    """

    estimator: Estimator = "k3"
    over: Literal["token", "sum", "mean", "max"] = "mean"
    low: float | None = None
    high: float = 0.01
    against: Against = "behaviour"
    log_ratio_clamp: float = 20.0

    def __post_init__(self) -> None:
        check_fields(against=self.against, log_ratio_clamp=self.log_ratio_clamp)
        estimators, spans, low = ("k1", "k2", "k3"), ("token", "sum", "mean", "max"), self.low
        require(
            self.estimator in estimators,
            "correction.estimator",
            wanted=f"one of {', '.join(estimators)}",
            got=self.estimator,
            remedy="k3 is never negative and unbiased.",
        )
        require(
            self.over in spans,
            "correction.over",
            wanted=f"one of {', '.join(spans)}",
            got=self.over,
            remedy="'mean' does not depend on the length of an answer.",
        )
        require(
            low is None or (self.estimator == "k1" and self.over != "max"),
            "correction.low",
            wanted="null unless estimator is k1 and over is not max",
            got=low,
            remedy="k2, k3 and a maximum are best at their lowest: leave low out.",
        )
        require(low is None or low <= 0, "correction.low", wanted="at most 0, nats", got=low, remedy="Equal policies have 0.")
        require(self.high >= 0, "correction.high", wanted="at least 0, nats", got=self.high, remedy="Equal policies have 0.")

    def correct(self, view: StepView) -> Correction:
        """The mask that is left as weights, [B, T]; the mask."""
        mask_BT, log_ratio_BT = view.batch.loss_mask_BT, sampler_log_ratio(view, self.against)
        value_BT = divergence(log_ratio_BT, estimator=self.estimator, clamp=self.log_ratio_clamp)
        statistic = row_statistic(value_BT, mask_BT, over=self.over)
        kept_BT = mask_BT & (statistic <= self.high)
        if self.low is not None:
            kept_BT = kept_BT & (statistic >= self.low)
        return Correction(weights_BT=kept_BT.to(log_ratio_BT.dtype), mask_BT=kept_BT)
