"""Small rewarded and scored batches: what a rank knows about its rows, before any part has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from delta_lightning.tensor_struct import TensorStruct
from delta_lightning.types import Credit, Experience, RolloutBatch, StepTotals, TokenScores

PROMPT = 2
VOCABULARY = 13
WIDTH = 5


def make_batch(
    lengths: Sequence[int],
    *,
    rewards: Sequence[float],
    groups: Sequence[int],
    valid: Sequence[bool] | None = None,
    pad: int = 1,
    seed: int = 0,
) -> RolloutBatch:
    """One row per length: two prompt tokens, `length` trained tokens, padding to the longest row plus `pad`."""
    generator = torch.Generator().manual_seed(seed)
    rows, longest = len(lengths), PROMPT + max(lengths, default=0) + pad
    positions = torch.arange(longest)
    ends_B = torch.tensor(lengths, dtype=torch.int64) + PROMPT
    valid_B = torch.tensor([True] * rows if valid is None else valid, dtype=torch.bool)
    attention_BT = positions < ends_B[:, None]
    mask_BT = attention_BT & (positions >= PROMPT) & valid_B[:, None]
    raw_BT = -torch.rand(rows, longest, generator=generator) * mask_BT
    return RolloutBatch(
        token_ids_BT=torch.randint(VOCABULARY, (rows, longest), generator=generator) * attention_BT,
        attention_mask_BT=attention_BT,
        loss_mask_BT=mask_BT,
        behaviour_logprobs_BT=raw_BT,
        raw_logprobs_BT=raw_BT,
        rewards_B=torch.tensor(rewards, dtype=torch.float32) * valid_B,
        verdict_rewards_B=torch.tensor(rewards, dtype=torch.float32) * valid_B,
        components_BR=torch.tensor(rewards, dtype=torch.float32)[:, None] * valid_B[:, None],
        valid_B=valid_B,
        truncated_B=torch.zeros(rows, dtype=torch.bool),
        group_ids_B=torch.tensor(groups, dtype=torch.int64),
        sequence_ids_B=torch.arange(rows),
        versions_B=torch.zeros(rows, dtype=torch.int64),
        prompt_lengths_B=torch.full((rows,), PROMPT),
        component_names=("reward",),
        token_weights_BT=torch.where(mask_BT, 2 * torch.rand(rows, longest, generator=generator), 1.0),
    )


@dataclass(frozen=True, kw_only=True)
class Scored(TensorStruct):
    """A batch with raw advantages [B] and everything a scoring pass could say of it, token-aligned."""

    batch: RolloutBatch
    advantages: Tensor
    logprobs_BT: Tensor
    entropies_BT: Tensor
    sum_p_squared_BT: Tensor
    reference_logprobs_BT: Tensor
    hidden_BTD: Tensor

    def widened(self, extra: int) -> Scored:
        """With `extra` columns of padding on the right."""

        def pad(value: Tensor) -> Tensor:
            return torch.cat([value, value.new_zeros(len(value), extra, *value.shape[2:])], dim=1)

        batch, names = self.batch, [item.name for item in fields(self.batch) if item.name.endswith("_BT")]
        mine = ("logprobs_BT", "entropies_BT", "sum_p_squared_BT", "reference_logprobs_BT", "hidden_BTD")
        wide = replace(batch, **{name: pad(getattr(batch, name)) for name in names})  # type: ignore[arg-type]
        return replace(self, batch=wide, **{name: pad(getattr(self, name)) for name in mine})

    def with_advantages(self, advantages_B: Tensor) -> Scored:
        """With other raw advantages."""
        return replace(self, advantages=advantages_B)

    def without(self, rows_B: Tensor) -> Scored:
        """With every token of the given rows out of the mask; the rows stay."""
        batch, mask_BT = self.batch, self.batch.loss_mask_BT & ~rows_B[:, None]
        sampled = {name: getattr(batch, name) * mask_BT for name in ("behaviour_logprobs_BT", "raw_logprobs_BT")}
        return replace(self, batch=replace(batch, loss_mask_BT=mask_BT, **sampled))

    def scores(self, rows: slice) -> TokenScores:
        """Those of some rows."""
        mask_BT = self.batch.loss_mask_BT[rows]
        return TokenScores(
            logprobs_BT=self.logprobs_BT[rows] * mask_BT,
            entropies_BT=self.entropies_BT[rows] * mask_BT,
            hidden_ND=self.hidden_BTD[rows][mask_BT],
            sum_p_squared_BT=self.sum_p_squared_BT[rows] * mask_BT,
            reference_logprobs_BT=self.reference_logprobs_BT[rows] * mask_BT,
        )

    def experience(self, credit_BT: Tensor | None = None) -> Experience:
        """Credited with the given scale, uniform by default; the old policy is the one that scored."""
        mask_BT = self.batch.loss_mask_BT
        ones_BT = mask_BT.to(self.logprobs_BT.dtype)
        return Experience(
            batch=self.batch,
            advantages=self.advantages,
            credit=Credit(scale_BT=ones_BT if credit_BT is None else credit_BT),
            correction_BT=ones_BT,
            old_logprobs_BT=self.logprobs_BT.detach() * mask_BT,
            reference_logprobs_BT=self.reference_logprobs_BT * mask_BT,
        )


def scored(batch: RolloutBatch, advantages: Sequence[float], *, dtype: torch.dtype = torch.float64, seed: int = 1) -> Scored:
    """Random scores; entropies and sums of p squared are of no real distribution."""
    generator = torch.Generator().manual_seed(seed)
    shape = batch.token_ids_BT.shape
    mask_BT = batch.loss_mask_BT

    def draw() -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype) * mask_BT

    hidden_BTD = torch.randn(*shape, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    return Scored(
        batch=batch,
        advantages=torch.tensor(advantages, dtype=torch.float32),
        logprobs_BT=-2 * draw(),
        entropies_BT=draw(),
        sum_p_squared_BT=draw(),
        reference_logprobs_BT=-2 * draw(),
        hidden_BTD=hidden_BTD * mask_BT[:, :, None],
    )


def mixed(dtype: torch.dtype = torch.float64, seed: int = 1) -> Scored:
    """Three groups of four: both signs, equal rewards, a row without verdict, one without tokens in the mask, two cut ones."""
    batch = make_batch(
        [3, 5, 1, 2, 4, 4, 2, 6, 3, 1, 5, 2],
        rewards=[1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 1],
        groups=[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2],
        valid=[True] * 9 + [False] + [True] * 2,
        seed=seed,
    )
    advantages = [0.9, -0.9, -0.9, 0.9, 0, 0, 0, 0, 0.6, 0, -1.2, 0.6]
    batch = replace(batch, truncated_B=(batch.sequence_ids_B == 1) | (batch.sequence_ids_B == 7))
    world = scored(batch, advantages, dtype=dtype, seed=seed + 1)
    return world.without(world.batch.sequence_ids_B == 3)


def golden(dtype: torch.dtype = torch.float64) -> Scored:
    """The worked example of the method: four responses of up to three tokens, hidden width 2."""
    batch = make_batch([3, 2, 3, 1], rewards=[1.0, 0.5, -1.5, 0.0], groups=[0, 0, 0, 0])
    mask_BT = batch.loss_mask_BT
    hidden_ND = [[2, 0], [0, 2], [1, 1], [0, 2], [2, 2], [-1, 1], [0, 2], [1, -1], [3, 1]]
    probabilities_N = [0.5, 0.9, 0.2, 0.9, 0.4, 0.3, 0.9, 0.6, 0.5]
    logprobs_BT, hidden_BTD = torch.zeros(mask_BT.shape, dtype=dtype), torch.zeros(*mask_BT.shape, 2, dtype=dtype)
    logprobs_BT[mask_BT] = torch.tensor(probabilities_N, dtype=dtype).log()
    hidden_BTD[mask_BT] = torch.tensor(hidden_ND, dtype=dtype)
    world = scored(batch, [1.0, 0.5, -1.5, 0.0], dtype=dtype)
    return replace(world, logprobs_BT=logprobs_BT, hidden_BTD=hidden_BTD)


def degenerate(dtype: torch.dtype = torch.float64) -> dict[str, Scored]:
    """Batches in which a part has little or nothing to go on, by name."""
    whole = mixed(dtype)
    zeros_B = torch.zeros_like(whole.advantages)
    return {
        "no advantage": whole.with_advantages(zeros_B),
        "positive side only": whole.with_advantages(zeros_B + 1),
        "negative side only": whole.with_advantages(-(zeros_B + 1)),
        "all tokens masked": whole.without(torch.ones_like(whole.batch.valid_B)),
        "one token": scored(make_batch([1], rewards=[1.0], groups=[0]), [0.5], dtype=dtype),
        "one token a side": scored(make_batch([1, 1], rewards=[1.0, 0.0], groups=[0, 0]), [0.7, -0.7], dtype=dtype),
        "identical tokens": replace(whole, hidden_BTD=torch.ones_like(whole.hidden_BTD), logprobs_BT=whole.logprobs_BT * 0 - 1),
        "one group": whole.rows(slice(0, 4)),
        "no rows": whole.rows(slice(0, 0)),
    }


def totals_of(world: Scored) -> StepTotals:
    """Denominators if the batch is a whole optimiser step; credit uniform."""
    mask_BT = world.batch.loss_mask_BT
    tokens = float(mask_BT.sum())
    trained_B = mask_BT.any(1)
    groups = float(len(torch.unique(world.batch.group_ids_B[trained_B])))
    return StepTotals(tokens=tokens, sequences=float(trained_B.sum()), groups=groups, credit=tokens)
