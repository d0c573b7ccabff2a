"""One whole rollout step on a tiny model, on this rank of any number of ranks, without Lightning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Delta
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean
from delta_lightning.models.scorer import Scorer
from delta_lightning.trainer.buffer import Buffer
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.rollouts import RolloutTools
from delta_lightning.trainer.step import Parts, Plan, make_batch, make_experience, micro_batch_loss
from delta_lightning.trainer.verdicts import VerdictPolicy
from delta_lightning.types import Prompt, SamplingParams
from support.engines import InlineJudge, ScriptedSession, parity
from support.models import tiny_model


@dataclass
class StepSetup:
    """Everything that may vary between runs that must agree."""

    updates: int = 2
    micro: int = 2
    groups: int = 8
    completions: int = 4
    max_new_tokens: int = 10
    head_budget: int = 1 << 20
    cache: HiddenCache = field(default_factory=HiddenCache)
    credit: CreditAssigner = field(default_factory=Delta)
    judge: Any = parity
    policy: VerdictPolicy = field(default_factory=VerdictPolicy)
    shaping: tuple[Any, ...] = ()
    filters: tuple[Any, ...] = ()
    penalties: tuple[Any, ...] = ()
    refill_rounds: int = 0
    reference: Any = None  # a scorer
    budget: int | None = None

    def parts(self) -> Parts:
        return Parts(
            shaping=self.shaping, filters=self.filters, advantage=GroupStandardised(), correction=NoCorrection(),
            credit=self.credit, weighting=Constant(), loss=ClippedSurrogate(), penalties=self.penalties, reduction=TokenMean(),
        )  # fmt: skip

    def scorer(self, model: Any) -> Scorer:
        return Scorer(model=model, temperature=1.0, head_budget_bytes=self.head_budget)


class Spoken(Progress):
    """Hands lines that stay to a function."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.line = say  # type: ignore[method-assign]


class Numbered:
    """An endless stream of prompts p0, p1, ... of one to three tokens."""

    drawn = 0

    def take(self, count: int) -> list[Prompt]:
        first, self.drawn = self.drawn, self.drawn + count
        return [
            Prompt(id=f"p{g}", text="", token_ids=tuple(2 + (g + k) % 50 for k in range(1 + g % 3)), source="t", reference={})
            for g in range(first, first + count)
        ]


def make_buffer(
    model: Any, setup: StepSetup, book: MetricBook | None = None, say: Callable[[str], None] = lambda line: None
) -> Buffer:
    """The credited rollouts of this rank."""
    ranks = Ranks.current()
    plan = Plan(
        cut=Cut(num_groups=setup.groups, updates=setup.updates, micro=setup.micro, budget=setup.budget),
        completions=setup.completions,
        sampling=SamplingParams(max_new_tokens=setup.max_new_tokens), cache=setup.cache, seed=0,
        refill_rounds=setup.refill_rounds,
    )  # fmt: skip
    tools = RolloutTools(
        session=ScriptedSession(), judge=InlineJudge(setup.judge), policy=setup.policy, ranks=ranks, clock=PhaseClock(),
        progress=Spoken(say),
    )  # fmt: skip
    parts, book = setup.parts(), book or MetricBook()
    batch, rows = make_batch(0, Numbered(), parts, plan, tools, book)
    return make_experience(0, batch, rows, parts, plan, setup.scorer(model), tools, book, setup.reference)


def gradients(model: Any, buffer: Buffer, setup: StepSetup) -> tuple[list[dict[str, torch.Tensor]], list[float]]:
    """For each optimiser step, the gradient and the loss at theta_old, summed over ranks."""
    ranks, scorer, parts = Ranks.current(), setup.scorer(model), setup.parts()
    grads, losses = [], []
    for update in range(setup.updates):
        model.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for index in range(update * setup.micro, (update + 1) * setup.micro):
            micro = buffer.micro_batch(index)
            loss, _ = micro_batch_loss(micro.experience, micro.totals, parts, scorer)
            loss.backward()
            total += loss.detach().double()
        grads.append({name: ranks.all_sum(p.grad) for name, p in model.named_parameters()})
        losses.append(float(ranks.all_sum(total)))
    return grads, losses


def by_sequence(buffer: Buffer) -> dict[int, list[float]]:
    """Credit of each sequence's trained tokens, by global sequence id."""
    batch, scale = buffer.experience.batch, buffer.experience.credit.scale_BT
    return {int(s): scale[row][batch.loss_mask_BT[row]].tolist() for row, s in enumerate(batch.sequence_ids_B)}


def outcome(
    family: str, dtype: torch.dtype, **changes: object
) -> tuple[dict[int, list[float]], list[dict[str, torch.Tensor]], list[float]]:
    """Credit by sequence, gradient and loss of each optimiser step, on this rank of those that there are."""
    torch.set_num_threads(1)
    setup = replace(StepSetup(), **changes)
    model = tiny_model(family, dtype=dtype)
    buffer = make_buffer(model, setup)
    return by_sequence(buffer), *gradients(model, buffer, setup)
