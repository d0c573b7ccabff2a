"""One training step, top to bottom. Start reading here.

A rollout step samples completions and judges them (`make_batch`), turns them into an `Experience` (`make_experience`), and
trains on it for several optimiser steps, each the sum of its micro-batches (`micro_batch_loss`). Nothing here knows a concrete
part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from delta_lightning.functional.random import stable_hash
from delta_lightning.interfaces import (
    AdvantageEstimator,
    CreditAssigner,
    Penalty,
    PolicyLoss,
    Reduction,
    RewardShaping,
    RolloutCorrection,
    RolloutFilter,
    TokenWeighting,
)
from delta_lightning.models.scorer import Scorer
from delta_lightning.trainer.balance import balanced
from delta_lightning.trainer.buffer import Buffer, totals_of
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.collate import Cut, filtered, judged_batch, shaped
from delta_lightning.trainer.memory import MicroBudget
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.observe import (
    observe_correction,
    observe_cut,
    observe_experience,
    observe_mismatch,
    observe_shaping,
)
from delta_lightning.trainer.refill import PromptStream, Ready, fill
from delta_lightning.trainer.rollouts import RolloutTools
from delta_lightning.trainer.view import RolloutView
from delta_lightning.types import (
    Correction,
    Experience,
    Need,
    RolloutBatch,
    SamplingParams,
    Statistics,
    StepTotals,
    TokenScores,
    with_mask,
)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The swappable parts of the objective."""

    shaping: tuple[RewardShaping, ...]
    filters: tuple[RolloutFilter, ...]
    advantage: AdvantageEstimator
    correction: RolloutCorrection
    credit: CreditAssigner
    weighting: TokenWeighting
    loss: PolicyLoss
    penalties: tuple[Penalty, ...]
    reduction: Reduction

    def rollout_needs(self) -> frozenset[Need]:
        """What the scoring pass under theta_old must compute; for penalties too the reference policy scores only once."""
        later = self.update_needs() & {Need.REFERENCE}
        return self.advantage.needs() | self.correction.needs() | self.credit.needs() | later

    def update_needs(self) -> frozenset[Need]:
        """What the forward pass of each update must compute."""
        return self.weighting.needs() | self.loss.needs() | frozenset().union(*(p.needs() for p in self.penalties))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes of a rollout step: P prompts over all ranks, G completions each, how they are cut, and how they are sampled."""

    cut: Cut
    completions: int
    sampling: SamplingParams
    cache: HiddenCache
    seed: int
    refill_rounds: int = 0


def make_batch(
    step: int,
    stream: PromptStream,
    parts: Parts,
    plan: Plan,
    tools: RolloutTools,
    book: MetricBook,
    ready: Ready | None = None,
    cost: Callable[[int], float] = float,
) -> tuple[RolloutBatch, list[slice]]:
    """The next prompts of the stream -> sampled, judged, shaped and filtered rollouts of this rank, rows of each micro-batch.

    `ready` has the first of them where they were sampled ahead. `cost` of a row, by its tokens, is what ranks share evenly.
    """
    rollouts = fill(
        stream, tools, book, groups=plan.cut.num_groups, rounds=plan.refill_rounds, completions=plan.completions,
        params=plan.sampling, seed=rollout_seed(plan, step), shaping=parts.shaping, filters=parts.filters, ready=ready,
    )  # fmt: skip
    rollouts = balanced(rollouts, plan.cut, cost, tools.ranks, book)
    batch, micro = judged_batch(rollouts, cut=plan.cut, completions=plan.completions, ranks=tools.ranks)
    batch = shaped(batch, parts.shaping)
    observe_shaping(book, batch, parts.shaping)
    return filtered(batch, parts.filters), micro


def rollout_seed(plan: Plan, step: int) -> int:
    """The seed of every draw of rollout step `step`."""
    return stable_hash(plan.seed, step, "rollout")


def make_experience(
    step: int,
    batch: RolloutBatch,
    micro: list[slice],
    parts: Parts,
    plan: Plan,
    scorer: Scorer,
    tools: RolloutTools,
    book: MetricBook,
    reference: Scorer | None = None,
    memory: MicroBudget | None = None,
) -> Buffer:
    """The batch -> credited micro-batches of this rank, all under theta_old; smaller ones if `memory` runs out."""

    def score(batch: RolloutBatch, micro: list[slice]) -> ScoredBatch:
        needs = parts.rollout_needs()
        return score_batch(step, batch, micro, parts, plan, scorer, tools, book, needs=needs, reference=reference)

    memory = memory or MicroBudget(plan.cut.budget)
    scored, micro = memory.scored(score, batch.to(scorer.device), micro, plan.cut, tools.ranks, tools.progress.line)
    observe_cut(book, scored.view.batch, micro, plan.cut)
    with tools.clock("credit"):
        experience = credited(scored, parts.credit)
    observe_experience(book, experience, scored.view)
    totals = totals_of(experience, micro, per_update=len(micro) // plan.cut.updates, ranks=tools.ranks)
    return Buffer(step=step, experience=experience, micro=micro, totals=totals)


@dataclass(frozen=True, kw_only=True)
class ScoredBatch:
    """Everything of a rollout step that comes before credit: any number of assigners may read it."""

    view: RolloutView
    old_logprobs_BT: Tensor
    reference_logprobs_BT: Tensor | None
    correction: Correction


def score_batch(
    step: int,
    batch: RolloutBatch,
    micro: list[slice],
    parts: Parts,
    plan: Plan,
    scorer: Scorer,
    tools: RolloutTools,
    book: MetricBook,
    *,
    needs: frozenset[Need],
    reference: Scorer | None = None,
) -> ScoredBatch:
    """Advantages, the one scoring pass under theta_old, and the correction; the mask is final from here on."""
    view = RolloutView(
        batch, micro=micro, scorer=scorer, needs=needs, cache=plan.cache, ranks=tools.ranks,
        seed=(plan.seed, step), tick=lambda done, total: tools.progress("scoring", done, total), reference=reference,
    )  # fmt: skip
    with tools.clock("score"):
        view.set_advantages(parts.advantage.advantages(view))
        old_BT, reference_BT = view.logprobs_BT(), view.reference_logprobs_BT()
    observe_mismatch(book, batch, old_BT)
    with tools.clock("credit"):
        correction = parts.correction.correct(view)
        observe_correction(book, view.batch.loss_mask_BT, correction)
        view.shrink(correction.mask_BT)
    mask_BT = correction.mask_BT
    return ScoredBatch(
        view=view,
        old_logprobs_BT=old_BT * mask_BT,
        reference_logprobs_BT=None if reference_BT is None else reference_BT * mask_BT,
        correction=correction,
    )


def credited(scored: ScoredBatch, assigner: CreditAssigner) -> Experience:
    """The batch with the credit that `assigner` gives it."""
    view = scored.view
    assert view.advantages is not None
    return Experience(
        batch=view.batch,
        advantages=view.advantages,
        credit=assigner.credit(view),
        correction_BT=scored.correction.weights_BT,
        old_logprobs_BT=scored.old_logprobs_BT,
        reference_logprobs_BT=scored.reference_logprobs_BT,
    )


def mini_batch_statistics(
    experience: Experience, view: RolloutView, parts: Parts
) -> tuple[Statistics | None, Statistics | None]:
    """A pass over one mini-batch under the current policy, for a weighting and a loss that want it.

    The loss gets the tokens that the weighting left; the view that was given stays as it is.
    """
    weighting = parts.weighting.statistics(experience, view) if Need.MINI_BATCH in parts.weighting.needs() else None
    if Need.MINI_BATCH not in parts.loss.needs():
        return weighting, None
    if weighting is not None and weighting.keep_BT is not None:
        mask_BT = experience.batch.loss_mask_BT & weighting.keep_BT
        experience, view = replace(experience, batch=with_mask(experience.batch, mask_BT)), view.shrunk(mask_BT)
    return weighting, parts.loss.statistics(experience, view)


def micro_batch_loss(
    experience: Experience,
    totals: StepTotals,
    parts: Parts,
    scorer: Scorer,
    statistics: tuple[Statistics | None, Statistics | None] = (None, None),
) -> tuple[Tensor, TokenScores]:
    """This micro-batch's share of the loss: a sum of weight x per-token loss. Shares add up to the step's loss."""
    scores = scorer.score(experience.batch, parts.update_needs())
    for_weighting, for_loss = statistics
    per_token_BT = parts.loss.per_token(experience, scores, for_loss)
    per_token_BT = per_token_BT * parts.weighting.weights(experience, scores, for_weighting) * experience.correction_BT
    for penalty in parts.penalties:
        per_token_BT = per_token_BT + penalty.per_token(experience, scores)
    return (per_token_BT * parts.reduction.weights(experience, totals)).sum(), scores
