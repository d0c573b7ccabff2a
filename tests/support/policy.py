"""A policy small enough to differentiate by hand, and one training step of it written as plainly as the step allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Delta
from delta_lightning.filters import ZeroVariance
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean
from delta_lightning.testing.views import Collectives, OneRank, View, rows_of_rank
from delta_lightning.testing.worlds import VOCABULARY, WIDTH, Scored, make_batch, scored
from delta_lightning.types import Experience, RolloutBatch, StepTotals


@dataclass
class ToyPolicy:
    """h_t = tanh(E[token t-1]), logits = W h; parameters E [V, D] and W [V, D]."""

    embedding: Tensor
    head: Tensor

    @classmethod
    def random(cls, dtype: torch.dtype, seed: int = 11) -> ToyPolicy:
        generator = torch.Generator().manual_seed(seed)
        draws = [torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2)]
        return cls(draws[0].requires_grad_(), draws[1].requires_grad_())

    def hidden_BTD(self, batch: RolloutBatch) -> Tensor:
        """The state that predicted each token; zeros for the first."""
        read = torch.tanh(self.embedding[batch.token_ids_BT[:, :-1]])
        return torch.cat([torch.zeros_like(read[:, :1]), read], dim=1)

    def logprobs_BT(self, batch: RolloutBatch) -> Tensor:
        """log p of each token, 0 outside the mask."""
        log_p = torch.log_softmax(self.hidden_BTD(batch) @ self.head.T, dim=-1)
        return log_p.gather(-1, batch.token_ids_BT[:, :, None])[:, :, 0] * batch.loss_mask_BT

    def gradients(self) -> Tensor:
        """All gradients, flat."""
        assert self.embedding.grad is not None and self.head.grad is not None
        return torch.cat([self.embedding.grad.flatten(), self.head.grad.flatten()])


def rollouts(dtype: torch.dtype, policy: ToyPolicy) -> Scored:
    """Four groups of three with rewards of every kind, scored by `policy`; the last of four ranks owns none of them."""
    batch = make_batch(
        [3, 5, 1, 2, 4, 4, 2, 6, 3, 1, 5, 2],
        rewards=[1, 0, 0, 1, 1, 1, 0.5, 1, 0, 1, 0, 1],
        groups=[0, 0, 0, 1, 1, 1, 2, 2, 2, 4, 4, 4],
        valid=[True] * 8 + [False] + [True] * 3,
    )
    world = scored(batch, [0.0] * 12, dtype=dtype)
    with torch.no_grad():
        return replace(world, logprobs_BT=policy.logprobs_BT(batch), hidden_BTD=policy.hidden_BTD(batch))


def experience_of(world: Scored, credit: CreditAssigner, ranks: Collectives, cuts: Sequence[slice] | None = None) -> Experience:
    """The rollout half of the step, parts in their order."""
    advantages_B = GroupStandardised().advantages(View(world, cuts, ranks))
    view = View(world.with_advantages(advantages_B), cuts, ranks)
    correction = NoCorrection().correct(view)
    return Experience(
        batch=world.batch,
        advantages=advantages_B,
        credit=credit.credit(view),
        correction_BT=correction.weights_BT,
        old_logprobs_BT=world.logprobs_BT,
    )


def step(
    dtype: torch.dtype,
    *,
    credit: CreditAssigner,
    rows: Tensor | None = None,
    ranks: Collectives | None = None,
    cuts: Sequence[slice] | None = None,
    pad: int = 0,
    filtered: bool = False,
) -> dict[str, Tensor]:
    """One rollout step and the gradient of one update, on the given rows of this rank."""
    ranks = OneRank() if ranks is None else ranks
    policy = ToyPolicy.random(dtype)
    world = rollouts(dtype, policy)
    world = (world if rows is None else world.rows(rows)).widened(pad)
    if filtered:
        world = replace(world, batch=ZeroVariance().apply(world.batch))
    cuts = [slice(0, world.batch.num_sequences)] if cuts is None else cuts
    experience = experience_of(world, credit, ranks, cuts)
    tokens = ranks.all_sum(world.batch.loss_mask_BT.sum().double())
    totals = StepTotals(tokens=float(tokens), sequences=0, groups=0, credit=0)
    loss = torch.zeros((), dtype=dtype)
    for part in cuts:
        mine = experience.rows(part)
        scores = replace(world.scores(part), logprobs_BT=policy.logprobs_BT(mine.batch))
        per_token_BT = ClippedSurrogate().per_token(mine, scores, None) * Constant().weights(mine, scores, None)
        share = (per_token_BT * mine.correction_BT * TokenMean().weights(mine, totals)).sum()
        share.backward()  # type: ignore[no-untyped-call]
        loss = loss + share.detach()
    return {
        "advantages": experience.advantages,
        "coefficients": experience.credit.scale_BT,
        "loss": ranks.all_sum(loss),
        "gradients": ranks.all_sum(policy.gradients()),
    }


class Gloo:
    """The default process group."""

    def all_sum(self, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    def all_rows(self, value: Tensor) -> list[Tensor]:
        parts: list[Tensor] = [value] * dist.get_world_size()
        dist.all_gather_object(parts, value)
        return parts


def work_of_rank() -> dict[str, dict[str, Tensor]]:
    """What one process of `test_ranks` does: the step under every setting, for the test to compare."""
    results = {}
    for name, (dtype, credit, filtered) in SETTINGS.items():
        rows = rows_of_rank(rollouts(dtype, ToyPolicy.random(dtype)), dist.get_rank(), dist.get_world_size())
        results[name] = {"rows": rows, **step(dtype, credit=credit, rows=rows, ranks=Gloo(), filtered=filtered)}
    return results


SETTINGS: dict[str, tuple[torch.dtype, CreditAssigner, bool]] = {
    "float64": (torch.float64, Delta(), False),
    "float32": (torch.float32, Delta(), False),
    "three refinements": (torch.float64, Delta(refinements=3), False),
    "filtered": (torch.float64, Delta(), True),
}
