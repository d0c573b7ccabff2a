"""Several assigners on one scored batch, and what each did to every trained token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import RunError
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.trainer.step import ScoredBatch, credited
from delta_lightning.types import Experience


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Trained tokens in the global order of sequences and positions, [N], and the coefficients of each assigner on them.

    Attributes:
        sequence_N: global sequence id. token_N: token id. advantage_N: raw advantage, float64. logprob_N: under theta_old.
        coefficients: by label, [N] float64. A token's coefficient is its token advantage divided by its raw advantage: the
            scale, plus shift / A for additive credit. Where A is 0 it is the scale.
        shifts: by label, [N] float64, of the additive assigners only.
    """

    sequence_N: Tensor
    token_N: Tensor
    advantage_N: Tensor
    logprob_N: Tensor
    coefficients: dict[str, Tensor]
    shifts: dict[str, Tensor]

    def side(self, name: str) -> Tensor:
        """[N] bool: "all" trained tokens, those with "positive", "negative" or "zero" raw advantage, or "signal": not zero."""
        a = self.advantage_N
        return {"all": a == a, "positive": a > 0, "negative": a < 0, "zero": a == 0, "signal": a != 0}[name]


def replay(
    scored: ScoredBatch,
    assigners: Mapping[str, CreditAssigner],
    tick: Callable[[str], None] = lambda label: None,
) -> tuple[Replay, dict[str, Experience]]:
    """The credit of each assigner; `tick` hears the label of the one at work.

    Raises:
        RunError: an assigner gave a coefficient that is not finite.
    """
    view = scored.view
    experiences: dict[str, Experience] = {}
    coefficients: dict[str, Tensor] = {}
    shifts: dict[str, Tensor] = {}
    for label, assigner in assigners.items():
        tick(label)
        with torch.no_grad():
            experience = credited(scored, assigner)
        mask_BT, credit = experience.batch.loss_mask_BT, experience.credit
        scale_N, raw_N = credit.scale_BT.double()[mask_BT], experience.raw_advantages_BT.double()[mask_BT]
        if credit.shift_BT is not None:
            shift_N = credit.shift_BT.double()[mask_BT]
            shifts[label] = view.gather(shift_N).cpu()
            scale_N = torch.where(raw_N != 0, scale_N + shift_N / torch.where(raw_N != 0, raw_N, 1), scale_N)
        if not bool(torch.isfinite(scale_N).all()):
            raise RunError(f"{label} gave {int((~scale_N.isfinite()).sum())} coefficients that are not finite")
        coefficients[label], experiences[label] = view.gather(scale_N).cpu(), experience
    batch, first = view.batch, next(iter(experiences.values()))
    mask_BT = batch.loss_mask_BT
    sequence_BT = batch.sequence_ids_B[:, None].expand_as(batch.token_ids_BT)
    return Replay(
        sequence_N=view.gather(sequence_BT[mask_BT]).cpu(),
        token_N=view.gather(batch.token_ids_BT[mask_BT]).cpu(),
        advantage_N=view.gather(first.raw_advantages_BT.double()[mask_BT]).cpu(),
        logprob_N=view.gather(scored.old_logprobs_BT[mask_BT]).double().cpu(),
        coefficients=coefficients,
        shifts=shifts,
    ), experiences
