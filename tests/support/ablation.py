"""A scored batch on a tiny model, an additive assigner, and a replay written by hand with its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from delta_lightning.ablation.replay import Replay
from delta_lightning.ablation.summary import Sizes, summarise
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.rollouts import RolloutTools
from delta_lightning.trainer.step import Plan, ScoredBatch, make_batch, score_batch
from delta_lightning.types import Credit, Need, SamplingParams
from support.engines import InlineJudge, ScriptedSession
from support.steps import Numbered, StepSetup

TOKENS = [5, 6, 5, 7, 6, 5, 8, 5]
ADVANTAGES = [1.0, 1.0, 1.0, 1.0, -2.0, -2.0, 0.0, 0.0]
GRADED = [1.0, 2.0, 3.0, 4.0, -1.0, 0.0, 1.0, 2.0]
NAMES = {5: "a", 6: "b", 7: "a", 8: "ü|"}  # two ids that read the same


@dataclass(frozen=True, kw_only=True)
class Nudged(CreditAssigner):
    """Scale 1 and a shift that grows along the answer: for tests of additive credit."""

    by: float = 0.25

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        return Credit(scale_BT=mask_BT.float(), shift_BT=self.by * mask_BT.cumsum(1) * mask_BT)

    def additive(self) -> bool:
        return True


def scored_batch(
    model: Any, setup: StepSetup, needs: frozenset[Need] = frozenset({Need.HIDDEN})
) -> tuple[ScoredBatch, list[slice]]:
    """The rollouts of `make_buffer`, scored, and the rows of each micro-batch."""
    plan = Plan(
        cut=Cut(num_groups=setup.groups, updates=setup.updates, micro=setup.micro), completions=setup.completions,
        sampling=SamplingParams(max_new_tokens=setup.max_new_tokens), cache=setup.cache, seed=0,
    )  # fmt: skip
    tools = RolloutTools(
        session=ScriptedSession(), judge=InlineJudge(setup.judge), policy=setup.policy, ranks=Ranks(), clock=PhaseClock(),
        progress=Progress(),
    )  # fmt: skip
    torch.set_num_threads(1)
    parts, scorer, book = setup.parts(), setup.scorer(model), MetricBook()
    batch, micro = make_batch(0, Numbered(), parts, plan, tools, book)
    return score_batch(0, batch, micro, parts, plan, scorer, tools, book, needs=needs), micro


def hand_made(**coefficients: list[float]) -> Replay:
    return Replay(
        sequence_N=torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), token_N=torch.tensor(TOKENS),
        advantage_N=torch.tensor(ADVANTAGES, dtype=torch.float64), logprob_N=torch.full((8,), -0.5, dtype=torch.float64),
        coefficients={name: torch.tensor(values, dtype=torch.float64) for name, values in coefficients.items()}, shifts={},
    )  # fmt: skip


def report(replayed: Replay, gram: list[list[float]] | None = None, **sizes: int) -> dict[str, Any]:
    count = len(replayed.coefficients)
    return summarise(
        replayed, torch.tensor(gram) if gram else torch.eye(count), strings=NAMES.__getitem__, sizes=Sizes(**sizes),
        rollouts={"step": 0, "seed": 0, "prompts": 2, "sequences": 4, "weights": {"sha256": "0" * 64}},
        described={name: f"{name}()" for name in replayed.coefficients},
    )  # fmt: skip
