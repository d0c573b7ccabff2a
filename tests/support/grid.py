"""One rollout step and its updates with any parts, cut any way, on this rank of any number of ranks: its gradients."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from delta_lightning.credit import Delta, Uniform
from delta_lightning.credit.proxies import HeadGradient, HiddenGradient, TopKHiddenGradient
from delta_lightning.functional.random import keyed_uniform
from delta_lightning.interfaces import (
    AdvantageEstimator,
    CreditAssigner,
    Penalty,
    PolicyLoss,
    Reduction,
    RolloutCorrection,
    TokenWeighting,
)
from delta_lightning.models.scorer import Scorer
from delta_lightning.tensor_struct import TensorStruct
from delta_lightning.testing.laws import concrete_parts
from delta_lightning.trainer.buffer import Buffer, totals_of
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.rollouts import RolloutTools
from delta_lightning.trainer.step import (
    Parts,
    Plan,
    credited,
    make_batch,
    micro_batch_loss,
    mini_batch_statistics,
    score_batch,
)
from delta_lightning.trainer.verdicts import VerdictPolicy
from delta_lightning.trainer.view import RolloutView
from delta_lightning.types import Completion, Need, Prompt, RolloutBatch, SamplingParams, Status, Verdict
from support.covering import Row
from support.engines import InlineJudge, ScriptedSession
from support.models import tiny_model
from support.steps import Numbered

SEAMS = {
    "estimator": AdvantageEstimator, "credit": CreditAssigner, "weighting": TokenWeighting, "loss": PolicyLoss,
    "reduction": Reduction, "correction": RolloutCorrection, "penalty": Penalty,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "credit": {
        "Delta(scope=group)": Delta(scope="group"),
        "Delta(HiddenGradient)": Delta(proxy=HiddenGradient()),
        "Delta(TopKHiddenGradient)": Delta(proxy=TopKHiddenGradient()),
        "Delta(HeadGradient)": Delta(proxy=HeadGradient()),
    },
    "penalty": {"none": None},
}
PLANTED = {"Delta(scope=rank)": Delta(scope="rank")}  # follows the number of ranks on purpose: no part of the grid
# Too gentle or too strict at their defaults for a toy step: these make every branch of the part run.
SETTINGS: dict[str, dict[str, Any]] = {
    "KLCov": {"ratio": 0.1},
    "ClipCov": {"share": 0.1, "low": 0.0},
    "FIPO": {"half_life": 2.0, "low": 0.8, "dual_clip": 1.05, "max_dual_clipped": 1, "safety_ratio": 1.02},
    "GSPO": {"clip_low": 0.02, "clip_high": 0.03},
    "GSPOToken": {"clip_low": 0.02, "clip_high": 0.03},
    "ConstantLength": {"length": 8},
    "Compose": {"assigners": (Delta(),)},
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How the same rollouts are cut: nothing of it may matter."""

    micro: int = 1
    pad: int = 0
    head_budget: int = 1 << 20
    cache: HiddenCache = HiddenCache()  # noqa: RUF009


SHAPES = {  # the first also fills rows that need no shape of their own
    "small head chunks": Shape(micro=3, head_budget=4 * 64 * 3),
    "two micro-batches": Shape(micro=2),
    "more padding": Shape(micro=2, pad=5),
    "no cache": Shape(micro=2, cache=HiddenCache(device_gib=0, host_gib=0)),
    "many, some empty": Shape(micro=13),  # an update has 12 rows
    "whole": Shape(),
}


@lru_cache
def choices() -> dict[str, dict[str, Any]]:
    """Every part of every seam by name, found by walking the seams; built from defaults unless `SETTINGS` says otherwise."""
    found: dict[str, dict[str, Any]] = {}
    for factor, seam in SEAMS.items():
        found[factor] = dict(VARIANTS.get(factor, {}))
        for cls in concrete_parts(seam):
            found[factor][cls.__name__] = cls(**SETTINGS.get(cls.__name__, {}))
    return found


def parts_of(row: Row) -> Parts:
    """The parts of a row; factors that it leaves out are the neutral ones."""
    chosen = {factor: (options | PLANTED)[row[factor]] for factor, options in choices().items() if factor in row}
    neutral = {
        "estimator": "GroupStandardised", "weighting": "Constant", "loss": "ClippedSurrogate", "reduction": "TokenMean",
        "correction": "NoCorrection",
    }  # fmt: skip
    for factor, name in neutral.items():
        chosen.setdefault(factor, choices()[factor][name])
    penalty = chosen.get("penalty")
    return Parts(
        shaping=(), filters=(), advantage=chosen["estimator"], correction=chosen["correction"],
        credit=chosen.get("credit", Uniform()), weighting=chosen["weighting"], loss=chosen["loss"],
        penalties=() if penalty is None else (penalty,), reduction=chosen["reduction"],
    )  # fmt: skip


def judge(prompt: Prompt, completion: Completion) -> Verdict:
    """Two reward components and a weight per token; one answer without verdict; one group in which all are right."""
    ids = completion.token_ids
    if prompt.id == "p2" and completion.sample_index == 1:
        return Verdict(status=Status.ERROR, reward=0.0)
    right = float(prompt.id == "p0" or sum(ids) % 2 == 1)
    short = float(len(ids) < 5)
    return Verdict(
        status=Status.CORRECT if right else Status.INCORRECT, reward=right, components={"right": right, "short": short},
        token_weights=[0.5 + (token % 7) / 7 for token in ids],
    )  # fmt: skip


def gradients(row: Row, shape: Shape, *, dtype: torch.dtype = torch.float64, updates: int = 2) -> Tensor:
    """[updates, parameters + 1]: gradient and loss of each update, summed over ranks, at weights that left theta_old."""
    torch.set_num_threads(1)
    ranks, parts = Ranks.current(), parts_of(row)
    scorer = Scorer(model=_fresh(dtype, 0), head_budget_bytes=shape.head_budget)
    reference = Scorer(model=_fresh(dtype, 3))
    plan = Plan(
        cut=Cut(num_groups=6, updates=updates, micro=shape.micro), completions=4, sampling=SamplingParams(max_new_tokens=8),
        cache=shape.cache, seed=0,
    )  # fmt: skip
    tools = RolloutTools(
        session=ScriptedSession(), judge=InlineJudge(judge), policy=VerdictPolicy(), ranks=ranks, clock=PhaseClock(),
        progress=Progress(),
    )  # fmt: skip
    batch, micro = make_batch(0, Numbered(), parts, plan, tools, MetricBook())
    batch = padded(sampled_from(batch, scorer), shape.pad)
    scored = score_batch(
        3, batch, micro, parts, plan, scorer, tools, MetricBook(), needs=parts.rollout_needs(), reference=reference
    )
    experience = credited(scored, parts.credit)
    totals = totals_of(experience, micro, per_update=shape.micro, ranks=ranks)
    buffer = Buffer(step=3, experience=experience, micro=micro, totals=totals)
    return torch.stack([_update(buffer, update, parts, plan, scorer, ranks) for update in range(updates)])


def _fresh(dtype: torch.dtype, seed: int) -> Any:
    """A tiny model at its first weights: built once, as building takes longer than a step with it."""
    model, weights = _built(dtype, seed)
    model.load_state_dict(weights)
    model.zero_grad()
    return model


@lru_cache
def _built(dtype: torch.dtype, seed: int) -> tuple[Any, dict[str, Tensor]]:
    model = tiny_model(dtype=dtype, seed=seed)
    return model, {name: value.clone() for name, value in model.state_dict().items()}


def _update(buffer: Buffer, update: int, parts: Parts, plan: Plan, scorer: Scorer, ranks: Ranks) -> Tensor:
    model = scorer.model
    move(model, seed=update)
    statistics = (None, None)
    if Need.MINI_BATCH in parts.update_needs():
        experience, micro = buffer.mini_batch(update)
        view = RolloutView(
            experience.batch, micro=micro, scorer=scorer, needs=parts.update_needs(), cache=plan.cache, ranks=ranks,
            seed=(plan.seed, buffer.step),
        )  # fmt: skip
        view.set_advantages(experience.advantages)
        statistics = mini_batch_statistics(experience, view, parts)
        kept = [one.keep_BT for one in statistics if one is not None and one.keep_BT is not None]
        if kept:
            buffer = buffer.shrunk(update, torch.stack(kept).all(0), ranks)
    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for index in range(update * plan.cut.micro, (update + 1) * plan.cut.micro):
        micro_batch = buffer.micro_batch(index)
        loss, _ = micro_batch_loss(micro_batch.experience, micro_batch.totals, parts, scorer, statistics)
        if loss.requires_grad:
            loss.backward()
        total += loss.detach().double()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return ranks.all_sum(torch.cat([*(grad.flatten().double() for grad in grads), total[None]]))


def move(model: Any, *, seed: int) -> None:
    """A policy some way from theta_old: the same step for the same seed."""
    generator = torch.Generator().manual_seed(100 + seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)


@torch.no_grad()
def sampled_from(batch: RolloutBatch, scorer: Scorer) -> RolloutBatch:
    """As if sampled by an engine whose log-probabilities are a little off, so that corrections have something to do."""
    mask_BT = batch.loss_mask_BT
    noise_BT = keyed_uniform(batch.sequence_ids_B, torch.arange(mask_BT.shape[1])) - 0.5
    scores = scorer.score(batch, frozenset()).logprobs_BT if batch.num_sequences else torch.zeros(mask_BT.shape)
    behaviour_BT = ((scores.double() + 0.5 * noise_BT) * mask_BT).float()
    return replace(batch, behaviour_logprobs_BT=behaviour_BT, raw_logprobs_BT=behaviour_BT)


def padded(batch: RolloutBatch, extra: int) -> RolloutBatch:
    """With `extra` more columns of padding."""
    names = [item.name for item in dataclasses.fields(batch) if item.name.endswith("_BT")]
    wide = {name: getattr(batch, name) for name in names if getattr(batch, name) is not None}
    return replace(batch, **{name: torch.nn.functional.pad(value, (0, extra)) for name, value in wide.items()})


def run_rows(rows: list[tuple[Row, str]], dtype: torch.dtype) -> list[Tensor]:
    """Gradients of many rows in one process group: starting ranks costs more than the rows."""
    return [gradients(row, SHAPES[shape], dtype=dtype) for row, shape in rows]


__all__ = ["SHAPES", "SEAMS", "Shape", "TensorStruct", "choices", "gradients", "parts_of", "run_rows"]
