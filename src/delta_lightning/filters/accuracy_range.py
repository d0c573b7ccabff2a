"""Keeps prompts that are neither too easy nor too hard."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.errors import ConfigError, require
from delta_lightning.functional.advantages import TIE, GroupStatistics, group_statistics
from delta_lightning.interfaces import RolloutFilter
from delta_lightning.types import RolloutBatch, with_mask


@dataclass(frozen=True, kw_only=True)
class AccuracyRange(RolloutFilter):
    """Keeps groups with low < mean of the verifier's rewards < high: DAPO's dynamic sampling (arXiv 2503.14476) by accuracy.

    With rewards of 0 and 1 the defaults keep exactly the groups with both; narrower bounds keep a difficulty. With other
    rewards the bounds are in their units. Rewards are the verifier's, before any shaping: an answer's length does not make it
    less right. A mean within 1e-6 of a bound counts as on it, hence outside. A group without verdict is not kept. DelTA's
    experiments use no such filter.

    Args:
        low: means up to it are dropped; null for no lower bound.
        high: means from it on are dropped; null for no upper bound.
        component: the reward component that is averaged; null for the whole reward.

    Raises:
        ConfigError: an empty range; or, in the first rollout step, a component that no verdict has.
    """

    low: float | None = 0.0
    high: float | None = 1.0
    component: str | None = None

    def __post_init__(self) -> None:
        require(
            self.low is None or self.high is None or self.low < self.high,
            "filters.low, filters.high",
            wanted="low below high",
            got=(self.low, self.high),
            remedy="The defaults, 0 and 1, keep groups with right and wrong answers.",
        )
        require(
            all(bound is None or bound == bound for bound in (self.low, self.high)),
            "filters.low, filters.high",
            wanted="numbers or null",
            got=(self.low, self.high),
            remedy="null is no bound.",
        )

    def keep_groups(self, batch: RolloutBatch) -> Tensor:
        """[P] bool, by ascending group id."""
        return self._kept(self._statistics(batch))

    def apply(self, batch: RolloutBatch) -> RolloutBatch:
        """The batch with every token of the other groups out of the mask."""
        group = self._statistics(batch)
        return with_mask(batch, batch.loss_mask_BT & self._kept(group)[group.index_B][:, None])

    def _kept(self, group: GroupStatistics) -> Tensor:
        kept_P = group.count_P > 0
        if self.low is not None:
            kept_P = kept_P & (group.mean_P > self.low + TIE)
        return kept_P if self.high is None else kept_P & (group.mean_P < self.high - TIE)

    def _statistics(self, batch: RolloutBatch) -> GroupStatistics:
        rewards_B = batch.verdict_rewards_B
        if self.component is not None and bool(batch.valid_B.any()):
            names = batch.component_names
            if self.component not in names:
                raise ConfigError(
                    "filters.component",
                    wanted=f"one of the components that verdicts have: {', '.join(names) or 'none'}",
                    got=repr(self.component),
                    remedy="null takes the whole reward.",
                )
            rewards_B = batch.components_BR[:, names.index(self.component)]
        return group_statistics(rewards_B, batch.group_ids_B, batch.valid_B)
