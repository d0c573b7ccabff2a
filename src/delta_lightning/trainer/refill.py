"""Dynamic sampling: prompts whose groups the filters do not keep are replaced, for a bounded number of rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from delta_lightning.interfaces import RewardShaping, RolloutFilter
from delta_lightning.trainer.collate import Cut, filtered, judged_batch, shaped
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.rollouts import RolloutTools, collect, rollout_metrics
from delta_lightning.trainer.verdicts import stop_if_broken
from delta_lightning.types import Prompt, Rollout, SamplingParams

# (this rank's prompts of a first round with their group ids, completions of each) -> their judged rollouts
Ready = Callable[[Sequence[tuple[int, Prompt]], int], list[tuple[int, Rollout]]]


class PromptStream(Protocol):
    """Training prompts in their order, the same on every rank."""

    def take(self, count: int) -> list[Prompt]:
        """The next prompts, none of them twice in one rollout step: fewer than `count` once the data are used up."""
        ...


def fill(
    stream: PromptStream,
    tools: RolloutTools,
    book: MetricBook,
    *,
    groups: int,
    rounds: int,
    completions: int,
    params: SamplingParams,
    seed: int,
    shaping: Sequence[RewardShaping],
    filters: Sequence[RolloutFilter],
    ready: Ready | None = None,
) -> list[tuple[int, Rollout]]:
    """Judged rollouts of this rank for the step's `groups` group ids. Collective.

    A group that the filters do not keep is sampled again with the next prompt, `rounds` times at most; group ids stay where
    they are, so mini-batches and ranks are those of a step without refill. What is still not kept after the last round stays
    in the step, for the filters to mask. Metrics count every completion that was sampled, dropped ones too. `ready` gives the
    first round where it was sampled ahead; what replaces dropped groups is sampled now.
    """
    ranks = tools.ranks
    latest: dict[int, list[tuple[int, Rollout]]] = {}
    missing = list(range(groups))
    drawn = used = 0
    for _ in range(1 + rounds):
        prompts = stream.take(len(missing))
        if not prompts:
            break
        mine = share(missing, prompts, ranks)
        if ready is not None and used == 0:
            fresh = ready(mine, completions)
        else:
            fresh = collect(mine, tools, completions=completions, params=params, seed=seed)
        stop_if_broken(fresh, tools.policy, ranks)
        rollout_metrics(book, fresh)
        for group, _ in mine:
            latest[group] = [item for item in fresh if item[0] == group]
        drawn, used = drawn + len(prompts), used + 1
        if rounds == 0:
            break
        kept = set().union(*ranks.all_objects(_kept(fresh, tools, completions, shaping, filters)))
        missing = [group for group in missing if group not in kept]
        if not missing:
            break
    book.maximum("rollout/prompts_drawn", drawn)
    book.maximum("rollout/refill_rounds", used - 1)
    return [item for group in sorted(latest) for item in latest[group]]


def share(groups: Sequence[int], prompts: Sequence[Prompt], ranks: Ranks) -> list[tuple[int, Prompt]]:
    """The groups of this rank with their prompts; there may be fewer prompts than groups."""
    return [(group, prompt) for group, prompt in zip(groups, prompts, strict=False) if group % ranks.size == ranks.rank]


def _kept(
    rollouts: Sequence[tuple[int, Rollout]],
    tools: RolloutTools,
    completions: int,
    shaping: Sequence[RewardShaping],
    filters: Sequence[RolloutFilter],
) -> set[int]:
    """Group ids of this rank in which the filters leave a trained token."""
    whole = Cut(num_groups=1 + max((group for group, _ in rollouts), default=0), updates=1, micro=1)
    batch, _ = judged_batch(rollouts, cut=whole, completions=completions, ranks=tools.ranks)
    batch = filtered(shaped(batch, shaping), filters)
    return set(torch.unique(batch.group_ids_B[batch.loss_mask_BT.any(1)]).tolist())
