"""Rollouts of one rank -> `RolloutBatch`, rows already in the order of their mini- and micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from delta_lightning.errors import RunError
from delta_lightning.interfaces import RewardShaping, RolloutFilter
from delta_lightning.trainer.batching import micro_batches, mini_batch_of, slices
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Rollout, RolloutBatch, Status, with_mask

TOKEN_WEIGHTS = "token weights"  # among the component names: some verdict of some rank carries them


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How a rollout step is cut: `updates` optimiser steps of `micro` micro-batches each; P groups over all ranks."""

    num_groups: int
    updates: int
    micro: int


def collate(
    rollouts: Sequence[tuple[int, Rollout]], *, cut: Cut, completions: int, names: tuple[str, ...] = ()
) -> tuple[RolloutBatch, list[slice]]:
    """The batch, and the rows of each micro-batch: `updates * micro` contiguous slices, some possibly empty.

    Args:
        rollouts: (group id, rollout) of every sequence of this rank, in any order.
        cut: the plan of the step. completions: G, for the global sequence ids.
        names: reward components, the same on every rank (`component_names`).
    """
    ordered = sorted(rollouts, key=lambda item: (item[0], item[1].completion.sample_index))
    lengths = [len(r.prompt.token_ids) + len(r.completion.token_ids) for _, r in ordered]
    parts: list[list[int]] = []
    for update in range(cut.updates):
        mine = [
            row
            for row, (group, _) in enumerate(ordered)
            if mini_batch_of(group, num_groups=cut.num_groups, updates=cut.updates) == update
        ]
        parts += [[mine[i] for i in part] for part in micro_batches([lengths[row] for row in mine], cut.micro)]
    order = [row for part in parts for row in part]
    rows = [ordered[row] for row in order]
    return _batch(rows, longest=max(lengths, default=2), completions=completions, names=names), slices(parts)


def component_names(rollouts: Sequence[tuple[int, Rollout]], ranks: Ranks) -> tuple[str, ...]:
    """Reward components that any rank's verdicts name, sorted; `TOKEN_WEIGHTS` if any has weights. Collective.

    Raises `RunError`, on every rank, for token weights that are not one finite number per token of their completion.
    """
    mine: set[str] = set()
    for _, rollout in rollouts:
        if rollout.verdict.status is not Status.ERROR:
            mine |= set(rollout.verdict.components) | ({TOKEN_WEIGHTS} if rollout.verdict.token_weights is not None else set())
    everywhere = ranks.all_objects((mine, next(filter(None, (_wrong_weights(rollout) for _, rollout in rollouts)), None)))
    wrong = next((reason for _, reason in everywhere if reason is not None), None)
    if wrong is not None:
        raise RunError(wrong)
    return tuple(sorted(set().union(*(names for names, _ in everywhere))))


def _batch(rows: Sequence[tuple[int, Rollout]], *, longest: int, completions: int, names: tuple[str, ...]) -> RolloutBatch:
    shape = (len(rows), longest)
    weighted, names = TOKEN_WEIGHTS in names, tuple(name for name in names if name != TOKEN_WEIGHTS)
    token_ids, attention = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    loss_mask, behaviour, raw = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape), torch.zeros(shape)
    components, weights = torch.zeros(len(rows), len(names)), torch.ones(shape)
    for row, (_, rollout) in enumerate(rows):
        prompt, answer = rollout.prompt.token_ids, rollout.completion
        start, end = len(prompt), len(prompt) + len(answer.token_ids)
        token_ids[row, :start] = torch.tensor(prompt)
        token_ids[row, start:end] = torch.tensor(list(answer.token_ids))
        attention[row, :end] = True
        loss_mask[row, start:end] = rollout.verdict.status is not Status.ERROR
        behaviour[row, start:end] = torch.tensor(list(answer.logprobs))
        raw[row, start:end] = torch.tensor(list(answer.raw_logprobs))
        if rollout.verdict.token_weights is not None:
            weights[row, start:end] = torch.tensor(list(rollout.verdict.token_weights))
        for column, name in enumerate(names):
            components[row, column] = rollout.verdict.components.get(name, 0.0)
    valid = [rollout.verdict.status is not Status.ERROR for _, rollout in rows]
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
        component_names=names,
        token_weights_BT=weights if weighted else None,
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
