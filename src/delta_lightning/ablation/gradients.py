"""Inner products of the policy gradients that different credit gives, over all parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from delta_lightning.errors import RunError
from delta_lightning.models.scorer import Scorer
from delta_lightning.trainer.buffer import Buffer, totals_of
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.step import Parts, micro_batch_loss, mini_batch_statistics
from delta_lightning.trainer.view import RolloutView
from delta_lightning.types import Experience, Need, RolloutBatch, Statistics, TokenScores, with_mask

SUMMED_AT_ONCE = 1 << 22  # elements of each gradient that are held in float64 at a time


@dataclasses.dataclass(frozen=True)
class _Task:
    """The loss of one assigner on the whole rollout batch."""

    buffer: Buffer
    statistics: tuple[Statistics | None, Statistics | None]

    @property
    def mask_BT(self) -> Tensor:
        """The trained tokens, after a statistic shrank them."""
        return self.buffer.experience.batch.loss_mask_BT


def gradient_products(
    experiences: Mapping[str, Experience],
    view: RolloutView,
    micro: Sequence[slice],
    parts: Parts,
    scorer: Scorer,
    *,
    budget_bytes: float,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """[K, K] float64: inner products of the K full-parameter gradients of the policy loss at theta_old.

    The loss is that of the config (loss, weighting, correction, reduction) over the whole rollout batch as one optimiser step.
    Penalties are left out: they are the same for every assigner and would only hide how the policy gradients differ.

    One forward pass per micro-batch serves all assigners, each of which then goes backward through it. Held beside the model
    are K + 1 gradients of a block of parameters, in float32 at least, and the activations of one micro-batch. All parameters
    are one block if K gradients of them fit `budget_bytes`; else each block costs one more pass over the rollouts, and inner
    products are added up over blocks. The result does not depend on the blocks.

    Args:
        experiences: by label, on the rows of `view`, whose scores are those of theta_old. micro: rows of each micro-batch.
        budget_bytes: for the K gradients of a block; a single parameter may exceed it.
        tick: hears (passes done, passes in all).

    Raises:
        RunError: a gradient that is not finite, of which no norm and no cosine can be told.
    """
    parts = dataclasses.replace(parts, penalties=())
    tasks = [_task(experience, view, micro, parts) for experience in experiences.values()]
    parameters = [parameter for parameter in scorer.model.parameters() if parameter.requires_grad]
    blocks = list(_blocks(parameters, copies=len(tasks), budget_bytes=budget_bytes))
    gram_KK = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)
    for number, block in enumerate(blocks):
        held = [[_zeros(parameter) for parameter in block] for _ in tasks]
        for index in range(len(micro)):
            if micro[index].start < micro[index].stop:
                _accumulate(held, block, tasks, index, parts, scorer)
            tick(number * len(micro) + index + 1, len(blocks) * len(micro))
        for place in range(len(block)):
            gram_KK += _products([gradients[place] for gradients in held])
    for label, square in zip(experiences, gram_KK.diagonal().tolist(), strict=True):
        if not math.isfinite(square):
            raise RunError(f"the policy gradient under {label} is not finite")
    return gram_KK


def _task(experience: Experience, view: RolloutView, micro: Sequence[slice], parts: Parts) -> _Task:
    """At theta_old the view of the rollout batch is also that of the mini-batch, the whole batch being one optimiser step."""
    with torch.no_grad():
        statistics = mini_batch_statistics(experience, view, parts)
    for one in statistics:
        if one is not None and one.keep_BT is not None:
            mask_BT = experience.batch.loss_mask_BT & one.keep_BT
            experience = dataclasses.replace(experience, batch=with_mask(experience.batch, mask_BT))
    totals = totals_of(experience, micro, per_update=len(micro), ranks=Ranks.current())
    return _Task(Buffer(step=view.step, experience=experience, micro=list(micro), totals=totals), statistics)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scored(Scorer):
    """Gives scores that were computed before."""

    scores: TokenScores

    def score(self, batch: RolloutBatch, needs: frozenset[Need]) -> TokenScores:
        """Those scores."""
        return self.scores


def _accumulate(
    held: list[list[Tensor]], block: list[Tensor], tasks: Sequence[_Task], index: int, parts: Parts, scorer: Scorer
) -> None:
    """Adds one micro-batch's gradients with respect to `block`, of every task.

    Tasks whose masks agree share one forward pass; a statistic that shrank a mask differently gives its task one of its own.
    """
    shared: TokenScores | None = None
    mask_BT = tasks[0].mask_BT
    alike = [torch.equal(task.mask_BT, mask_BT) for task in tasks]
    for number, (task, gradients) in enumerate(zip(tasks, held, strict=True)):
        one = task.buffer.micro_batch(index)
        with torch.enable_grad():
            if alike[number] and shared is not None:
                scores = shared
            else:
                scores = scorer.score(one.experience.batch, parts.update_needs())
                shared = scores if alike[number] else shared
            given = _Scored(model=scorer.model, temperature=scorer.temperature, scores=scores)
            loss, _ = micro_batch_loss(one.experience, one.totals, parts, given, task.statistics)
            if not loss.requires_grad:  # nothing of it depends on the policy
                continue
            again = alike[number] and any(alike[number + 1 :])
            found = torch.autograd.grad(loss, block, retain_graph=again, allow_unused=True)
        for total, gradient in zip(gradients, found, strict=True):
            if gradient is not None:
                total += gradient


def _blocks(parameters: Sequence[Tensor], *, copies: int, budget_bytes: float) -> Iterator[list[Tensor]]:
    """Consecutive parameters whose `copies` gradients fit the budget, at least one in each block."""
    block: list[Tensor] = []
    size = 0
    for parameter in parameters:
        own = copies * parameter.numel() * max(4, parameter.element_size())
        if block and size + own > budget_bytes:
            yield block
            block, size = [], 0
        block.append(parameter)
        size += own
    if block:
        yield block


def _zeros(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.float32), requires_grad=False)


def _products(gradients: Sequence[Tensor]) -> Tensor:
    """Inner products of one parameter's gradients, in float64, a piece at a time."""
    total = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    pieces = [torch.split(gradient.reshape(-1), SUMMED_AT_ONCE) for gradient in gradients]
    for same in zip(*pieces, strict=True):
        stacked = torch.stack([piece.double() for piece in same])
        total += (stacked @ stacked.T).cpu()
    return total
