"""What is measured at every step. Names and units are listed in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from delta_lightning.interfaces import RewardShaping
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.view import RolloutView
from delta_lightning.types import Correction, Experience, RolloutBatch, Statistics, TokenScores

VISIBLE_MISMATCH = 0.02  # nats; the share of tokens above it is logged


def observe_mismatch(book: MetricBook, batch: RolloutBatch, logprobs_BT: Tensor) -> None:
    """Sampler against scorer, log-probabilities of the temperature-only distribution, nats."""
    mask = batch.loss_mask_BT
    difference = (logprobs_BT.double() - batch.raw_logprobs_BT.double())[mask]
    tokens = len(difference)
    book.add("mismatch/mean_abs_nats", difference.abs().sum(), tokens)
    book.maximum("mismatch/max_abs_nats", difference.abs().max() if tokens else 0.0)
    book.add("mismatch/kl_nats", (difference.exp() - 1 - difference).sum(), tokens)
    book.add("mismatch/share_over_0.02", (difference.abs() > VISIBLE_MISMATCH).sum(), tokens)
    book.add("rollout/entropy_nats", -logprobs_BT.double()[mask].sum(), tokens)


def observe_shaping(book: MetricBook, batch: RolloutBatch, shaping: Sequence[RewardShaping]) -> None:
    """Mean reward after shaping, where there is any; `reward/mean` is the verifier's."""
    if shaping:
        book.add("reward/shaped_mean", batch.rewards_B.double().sum(), batch.valid_B.sum())


def observe_cut(book: MetricBook, batch: RolloutBatch, micro: Sequence[slice], cut: Cut) -> None:
    """How many micro-batches there are, what the largest costs, and how much of what is computed is padding."""
    lengths = batch.attention_mask_BT.sum(1).tolist()
    costs = [cut.layout.cost(lengths[part]) for part in micro]
    book.maximum("micro_batches/per_update", len(micro) // cut.updates)
    book.maximum("micro_batches/largest_tokens", max(costs, default=0))
    book.add("micro_batches/padding_share", sum(costs) - sum(lengths), sum(costs))


def observe_correction(book: MetricBook, mask_BT: Tensor, correction: Correction) -> None:
    """What a correction left of the tokens that it was given, and how uneven its weights are."""
    weights = correction.weights_BT[correction.mask_BT].double()
    book.add("correction/kept_share", correction.mask_BT.sum(), mask_BT.sum())
    book.add("correction/mean_weight", weights.sum(), len(weights))
    book.add("correction/mean_square", weights.square().sum(), len(weights))


def observe_experience(book: MetricBook, experience: Experience, view: RolloutView) -> None:
    """Advantages and credit of trained tokens."""
    batch = experience.batch
    mask = batch.loss_mask_BT
    scale = experience.credit.scale_BT[mask].double()
    tokens = len(scale)
    book.add("credit/mean", scale.sum(), tokens)
    book.add("credit/mean_square", scale.square().sum(), tokens)
    book.maximum("credit/max", scale.max() if tokens else 0.0)
    book.minimum("credit/min", scale.min() if tokens else 0.0)
    for name, side in (("positive", experience.raw_advantages_BT > 0), ("negative", experience.raw_advantages_BT < 0)):
        chosen = experience.credit.scale_BT[side & mask].double()
        book.add(f"credit/mean_{name}", chosen.sum(), len(chosen))
    signal = (experience.token_advantages_BT != 0).any(1)
    book.add("rollout/signal_share", signal.sum(), batch.num_sequences)
    book.maximum("credit/cache_mib", view.cache_bytes / 2**20)
    book.maximum("credit/cache_place", float(view.cache_place))
    if experience.credit.shift_BT is not None:
        book.add("credit/mean_shift", experience.credit.shift_BT.double().sum(), tokens)
    if experience.reference_logprobs_BT is not None:
        gap = (experience.reference_logprobs_BT - experience.old_logprobs_BT)[mask].double()
        book.add("rollout/reference_kl_nats", (gap.exp() - 1 - gap).sum(), tokens)


@torch.no_grad()
def observe_update(book: MetricBook, experience: Experience, scores: TokenScores, values: dict[str, Tensor]) -> None:
    """Means over trained tokens of what the policy loss reports, and the ratio's distance from 1."""
    mask = experience.batch.loss_mask_BT
    tokens = mask.sum()
    for name, value_BT in values.items():
        book.add(f"update/{name}", (value_BT.double() * mask).sum(), tokens)
    if scores.entropies_BT is not None:
        book.add("update/entropy_nats", (scores.entropies_BT.double() * mask).sum(), tokens)


def observe_statistics(book: MetricBook, statistics: tuple[Statistics | None, Statistics | None]) -> None:
    """What a weighting and a loss found out about the mini-batch; integers are keys, and a bound that excludes all or nothing
    is infinite: both are left out."""
    for name, one in zip(("weighting", "loss"), statistics, strict=True):
        for key, value in ({} if one is None else one.values).items():
            if value.is_floating_point() and bool(value.isfinite()):
                book.add(f"update/{name}/{key}", value.double(), 1.0)


def derived(values: dict[str, float]) -> dict[str, float]:
    """Standard deviation and effective sample share of credit and correction, from their first two moments."""
    weight, spread = values.get("correction/mean_weight"), values.pop("correction/mean_square", None)
    if weight is not None and spread:
        values["correction/effective_share"] = weight * weight / spread
    mean, square = values.get("credit/mean"), values.pop("credit/mean_square", None)
    if mean is not None and square:
        values["credit/std"] = max(0.0, square - mean * mean) ** 0.5
        values["credit/effective_share"] = mean * mean / square
    return values
