"""Rollouts of one rank -> `RolloutBatch`, rows already in the order of their mini- and micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from delta_lightning.errors import RunError
from delta_lightning.interfaces import RewardShaping, RolloutFilter
from delta_lightning.models.layout import RowLayout
from delta_lightning.models.padded import Padded
from delta_lightning.trainer.batching import fewest, slices
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.verdicts import component
from delta_lightning.types import Rollout, RolloutBatch, with_mask


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How a rollout step is cut: `updates` optimiser steps of `micro` micro-batches each; P groups over all ranks.

    `layout` says which rows go together. With a `budget`, the largest cost of a micro-batch in the layout's unit, `micro` is
    the least, and a step has as many more as it needs.
    """

    num_groups: int
    updates: int
    micro: int
    layout: RowLayout = field(default_factory=Padded)
    budget: int | None = None

    def update_of(self, group: int) -> int:
        """The optimiser step that trains `group`: consecutive groups, the same on any number of ranks."""
        return group * self.updates // self.num_groups


@dataclass(frozen=True, kw_only=True)
class VerdictColumns:
    """What some verdict of some rank carries: named reward components, sorted, and weights per token."""

    components: tuple[str, ...] = ()
    token_weights: bool = False


def judged_batch(
    rollouts: Sequence[tuple[int, Rollout]], *, cut: Cut, completions: int, ranks: Ranks
) -> tuple[RolloutBatch, list[slice]]:
    """`collate` with the columns of all ranks' verdicts; groups left with one verdict are masked. Collective."""
    columns = verdict_columns(rollouts, ranks)
    batch, micro = collate(rollouts, cut=fitted(rollouts, cut, ranks), completions=completions, columns=columns)
    return (drop_lonely_groups(batch) if completions > 1 else batch), micro


def fitted(rollouts: Sequence[tuple[int, Rollout]], cut: Cut, ranks: Ranks) -> Cut:
    """The cut with as many micro-batches as the budget needs: one number for all optimiser steps and ranks. Collective."""
    if cut.budget is None:
        return cut
    lengths: list[list[int]] = [[] for _ in range(cut.updates)]
    for group, rollout in rollouts:
        lengths[cut.update_of(group)].append(tokens_of(rollout))
    needed = max(fewest(part, cut.layout, cut.budget) for part in lengths)
    return replace(cut, micro=max([cut.micro, *ranks.all_objects(needed)]))


def tokens_of(rollout: Rollout) -> int:
    """Prompt and completion."""
    return len(rollout.prompt.token_ids) + len(rollout.completion.token_ids)


def collate(
    rollouts: Sequence[tuple[int, Rollout]], *, cut: Cut, completions: int, columns: VerdictColumns = VerdictColumns()
) -> tuple[RolloutBatch, list[slice]]:
    """The batch, and the rows of each micro-batch: `updates * micro` contiguous slices, some possibly empty.

    Args:
        rollouts: (group id, rollout) of every sequence of this rank, in any order.
        cut: the plan of the step. completions: G, for the global sequence ids.
        columns: of the verdicts, the same on every rank (`verdict_columns`).
    """
    ordered = sorted(rollouts, key=lambda item: (item[0], item[1].completion.sample_index))
    lengths = [tokens_of(rollout) for _, rollout in ordered]
    parts: list[list[int]] = []
    for update in range(cut.updates):
        mine = [row for row, (group, _) in enumerate(ordered) if cut.update_of(group) == update]
        parts += [[mine[i] for i in part] for part in cut.layout.cut([lengths[row] for row in mine], cut.micro)]
    order = [row for part in parts for row in part]
    rows = [ordered[row] for row in order]
    return _batch(rows, longest=max(lengths, default=2), completions=completions, columns=columns), slices(parts)


def verdict_columns(rollouts: Sequence[tuple[int, Rollout]], ranks: Ranks) -> VerdictColumns:
    """What any rank's verdicts carry. Collective.

    Raises `RunError`, on every rank, for token weights that are not one finite number per token of their completion.
    """
    counted = [rollout.verdict for _, rollout in rollouts if rollout.counts]
    names = {name for verdict in counted for name in verdict.components}
    weighted = any(verdict.token_weights is not None for verdict in counted)
    wrong = next(filter(None, (_wrong_weights(rollout) for _, rollout in rollouts)), None)
    everywhere = ranks.all_objects((names, weighted, wrong))
    for _, _, reason in everywhere:
        if reason is not None:
            raise RunError(reason)
    components = tuple(sorted(set().union(*(part[0] for part in everywhere))))
    return VerdictColumns(components=components, token_weights=any(part[1] for part in everywhere))


def _batch(rows: Sequence[tuple[int, Rollout]], *, longest: int, completions: int, columns: VerdictColumns) -> RolloutBatch:
    shape = (len(rows), longest)
    token_ids, attention = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    loss_mask, behaviour, raw = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape), torch.zeros(shape)
    components, weights = torch.zeros(len(rows), len(columns.components)), torch.ones(shape)
    for row, (_, rollout) in enumerate(rows):
        prompt, answer = rollout.prompt.token_ids, rollout.completion
        start, end = len(prompt), len(prompt) + len(answer.token_ids)
        token_ids[row, :start] = torch.tensor(prompt)
        token_ids[row, start:end] = torch.tensor(list(answer.token_ids))
        attention[row, :end] = True
        loss_mask[row, start:end] = rollout.counts
        behaviour[row, start:end] = torch.tensor(list(answer.logprobs))
        raw[row, start:end] = torch.tensor(list(answer.raw_logprobs))
        if rollout.verdict.token_weights is not None:
            weights[row, start:end] = torch.tensor(list(rollout.verdict.token_weights))
        for column, name in enumerate(columns.components):
            components[row, column] = component(rollout.verdict, name)
    valid = [rollout.counts for _, rollout in rows]
    rewards = torch.tensor([r.verdict.reward if ok else 0.0 for (_, r), ok in zip(rows, valid, strict=True)])
    return RolloutBatch(
        token_ids_BT=token_ids,
        attention_mask_BT=attention,
        loss_mask_BT=loss_mask,
        behaviour_logprobs_BT=behaviour * loss_mask,
        raw_logprobs_BT=raw * loss_mask,
        rewards_B=rewards,
        verdict_rewards_B=rewards,
        components_BR=components,
        valid_B=torch.tensor(valid, dtype=torch.bool),
        truncated_B=torch.tensor([r.completion.finish_reason == "length" for _, r in rows], dtype=torch.bool),
        group_ids_B=torch.tensor([group for group, _ in rows], dtype=torch.int64),
        sequence_ids_B=torch.tensor([g * completions + r.completion.sample_index for g, r in rows], dtype=torch.int64),
        versions_B=torch.tensor([r.completion.version for _, r in rows], dtype=torch.int64),
        prompt_lengths_B=torch.tensor([len(r.prompt.token_ids) for _, r in rows], dtype=torch.int64),
        component_names=columns.components,
        token_weights_BT=weights if columns.token_weights else None,
    )


def _wrong_weights(rollout: Rollout) -> str | None:
    """Why the token weights of a verdict cannot be used, or None."""
    given, wanted = rollout.verdict.token_weights, len(rollout.completion.token_ids)
    if given is None or (len(given) == wanted and all(map(math.isfinite, given))):
        return None
    return (
        f"prompt {rollout.prompt.id}: the verifier gave {len(given)} token weights, "
        f"{sum(not math.isfinite(weight) for weight in given)} of them not finite, for a completion of {wanted} tokens"
    )


def drop_lonely_groups(batch: RolloutBatch) -> RolloutBatch:
    """Masks groups left with fewer than two verdicts: an answer without another to compare says nothing."""
    if batch.num_sequences == 0:
        return batch
    verdicts_P = torch.zeros(int(batch.group_ids_B.max()) + 1, dtype=torch.int64, device=batch.group_ids_B.device)
    verdicts_P.index_add_(0, batch.group_ids_B, batch.valid_B.to(torch.int64))
    keep_B = verdicts_P[batch.group_ids_B] >= 2
    return masked(replace(batch, valid_B=batch.valid_B & keep_B), keep_B)


def masked(batch: RolloutBatch, keep_B: torch.Tensor) -> RolloutBatch:
    """The batch with every token of the other rows out of the loss mask, log-probabilities zeroed as its law says."""
    return with_mask(batch, batch.loss_mask_BT & keep_B[:, None])


def shaped(batch: RolloutBatch, shaping: Sequence[RewardShaping]) -> RolloutBatch:
    """Each shaping in turn; its rewards are what everything after it reads."""
    for one in shaping:
        batch = replace(batch, rewards_B=one.rewards(batch))
    return batch


def filtered(batch: RolloutBatch, filters: Sequence[RolloutFilter]) -> RolloutBatch:
    """Each filter in turn: groups that it does not keep leave the batch, then it shrinks the mask."""
    for one in filters:
        _, group_of_row = torch.unique(batch.group_ids_B, return_inverse=True)
        batch = one.apply(masked(batch, one.keep_groups(batch)[group_of_row]))
    return batch
