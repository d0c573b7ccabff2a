"""The whole product of parts, at the level of tokens.

Parts meet the model only through the scores of its tokens, so two ways to cut a step give the same parameter gradient if they
give the same gradient with respect to every token's log-probability and entropy: the rest is the model's own backward pass,
which `support.grid` runs for a covering array. Here scores are computed once per shape, and 40,000 combinations are affordable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from delta_lightning.models.scorer import Scorer
from delta_lightning.trainer.buffer import Buffer, totals_of
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.rollouts import RolloutTools
from delta_lightning.trainer.step import Parts, Plan, credited, make_batch, micro_batch_loss, mini_batch_statistics, score_batch
from delta_lightning.trainer.verdicts import VerdictPolicy
from delta_lightning.trainer.view import RolloutView
from delta_lightning.types import Experience, Need, RolloutBatch, SamplingParams, TokenScores
from support.covering import Row
from support.engines import InlineJudge, ScriptedSession
from support.grid import SHAPES, Shape, judge, move, padded, parts_of, sampled_from
from support.models import tiny_model
from support.steps import Numbered

GROUPS, ANSWERS, LENGTH, UPDATES = 6, 4, 16, 2
EVERYTHING = frozenset({Need.ENTROPY, Need.HIDDEN, Need.SUM_P_SQUARED})


@dataclass(frozen=True, kw_only=True)
class Remembered(Scorer):
    """Scores every set of rows once; what it hands out are leaves, so that gradients end at the scores."""

    known: dict[Any, TokenScores] = field(default_factory=dict)

    def score(self, batch: RolloutBatch, needs: frozenset[Need]) -> TokenScores:
        key = (tuple(batch.sequence_ids_B.tolist()), tuple(batch.token_ids_BT.shape), batch.loss_mask_BT.numpy().tobytes())
        if key not in self.known:
            with torch.no_grad():
                self.known[key] = super().score(batch, EVERYTHING)
        found = self.known[key]
        return replace(
            found,
            logprobs_BT=found.logprobs_BT.clone().requires_grad_(torch.is_grad_enabled()),
            entropies_BT=found.entropies_BT.clone().requires_grad_(torch.is_grad_enabled()) if Need.ENTROPY in needs else None,
            hidden_ND=found.hidden_ND if Need.HIDDEN in needs else None,
            sum_p_squared_BT=found.sum_p_squared_BT if Need.SUM_P_SQUARED in needs else None,
        )


class Context:
    """One shape on this rank: its rollouts, the policy that sampled them, and the policy at each update."""

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float64) -> None:
        self.ranks, self.shape = Ranks.current(), shape
        self.plan = Plan(
            cut=Cut(num_groups=GROUPS, updates=UPDATES, micro=shape.micro), completions=ANSWERS,
            sampling=SamplingParams(max_new_tokens=8), cache=shape.cache, seed=0,
        )  # fmt: skip
        self.tools = RolloutTools(
            session=ScriptedSession(), judge=InlineJudge(judge), policy=VerdictPolicy(), ranks=self.ranks, clock=PhaseClock(),
            progress=Progress(),
        )  # fmt: skip
        model = tiny_model(dtype=dtype)
        self.old = Remembered(model=model, head_budget_bytes=shape.head_budget)
        batch, self.micro = make_batch(0, Numbered(), parts_of({}), self.plan, self.tools, MetricBook())
        self.batch = padded(sampled_from(batch, self.old), shape.pad)
        self.moved: list[Remembered] = []
        for update in range(UPDATES):
            later = tiny_model(dtype=dtype)
            move(later, seed=update)
            self.moved.append(Remembered(model=later, head_budget_bytes=shape.head_budget))

    def experience(self, parts: Parts) -> Buffer:
        """The rollouts credited by an estimator and an assigner."""
        scored = score_batch(
            3, self.batch, self.micro, parts, self.plan, self.old, self.tools, MetricBook(), needs=parts.rollout_needs()
        )
        experience = credited(scored, parts.credit)
        totals = totals_of(experience, self.micro, per_update=self.shape.micro, ranks=self.ranks)
        return Buffer(step=3, experience=experience, micro=self.micro, totals=totals)

    def gradient(self, buffer: Buffer, update: int, parts: Parts) -> Tensor:
        """[2, sequences, LENGTH] float64: with respect to log-probabilities and entropies, by global sequence id."""
        scorer, per = self.moved[update], self.shape.micro
        statistics: Any = (None, None)
        if Need.MINI_BATCH in parts.update_needs():
            experience, micro = buffer.mini_batch(update)
            statistics = self._statistics(experience, micro, parts, scorer)
            kept = [one.keep_BT for one in statistics if one is not None and one.keep_BT is not None]
            if kept:
                buffer = buffer.shrunk(update, torch.stack(kept).all(0), self.ranks)
        out = torch.zeros(2, GROUPS * ANSWERS, LENGTH, dtype=torch.float64)
        for index in range(update * per, (update + 1) * per):
            one = buffer.micro_batch(index)
            loss, scores = micro_batch_loss(one.experience, one.totals, parts, scorer, statistics)
            rows = one.experience.batch.sequence_ids_B
            leaves = [leaf for leaf in (scores.logprobs_BT, scores.entropies_BT) if leaf is not None]
            if loss.requires_grad and len(rows):
                for place, grad in enumerate(torch.autograd.grad(loss, leaves, allow_unused=True)):
                    if grad is not None:
                        out[place, rows, : grad.shape[1]] += grad.double()[:, :LENGTH]
        return out

    def _statistics(self, experience: Experience, micro: list[slice], parts: Parts, scorer: Scorer) -> Any:
        view = RolloutView(
            experience.batch, micro=micro, scorer=scorer, needs=parts.update_needs(), cache=self.plan.cache, ranks=self.ranks,
            seed=(self.plan.seed, 3),
        )  # fmt: skip
        view.set_advantages(experience.advantages)
        return mini_batch_statistics(experience, view, parts)


def token_gradients(rows: list[Row], shape: str) -> Iterator[Tensor]:
    """[UPDATES, 2, sequences, LENGTH] of each row, summed over ranks; rows that share estimator and credit stand together."""
    torch.set_num_threads(1)
    context = Context(SHAPES[shape])
    before: tuple[str, str] | None = None
    buffer: Buffer | None = None
    for row in rows:
        parts = parts_of(row)
        if before != (row["estimator"], row["credit"]):
            before, buffer = (row["estimator"], row["credit"]), context.experience(parts)
        assert buffer is not None
        both = torch.stack([context.gradient(buffer, update, parts) for update in range(UPDATES)])
        yield context.ranks.all_sum(both)


def differences(rows: list[Row], shape: str, wanted: list[Tensor]) -> list[float]:
    """For each row the largest difference from `wanted`, relative to the largest gradient."""
    found = []
    for got, want in zip(token_gradients(rows, shape), wanted, strict=True):
        scale = max(float(want.abs().max()), 1e-9)
        found.append(float((got - want).abs().max()) / scale if bool(torch.isfinite(got).all()) else float("inf"))
    return found
