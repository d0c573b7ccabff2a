"""What every correction starts from: the log-ratio between the trainer's policy and the sampler's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.interfaces import StepView

Against = Literal["behaviour", "raw"]


@torch.no_grad()
def sampler_log_ratio(view: StepView, against: Against) -> Tensor:
    """d = log pi_old - log mu, nats; [B, T] in the dtype of the scores, 0 outside the mask.

    mu is the distribution really sampled from ("behaviour") or the sampler's at the same temperature before top-p and top-k
    cut it ("raw"); without either they are the same. With them mu is the raw distribution divided by the mass S that they
    keep, so that every token has d lower by -log S: that is no mismatch of engines, and "raw" leaves it out.
    """
    batch = view.batch
    sampled_BT = batch.behaviour_logprobs_BT if against == "behaviour" else batch.raw_logprobs_BT
    scored = [scores.logprobs_BT for _, scores in view.passes()]
    old_BT = torch.cat(scored) if scored else sampled_BT
    return torch.where(batch.loss_mask_BT, old_BT - sampled_BT, 0.0)


def check_fields(*, against: str, log_ratio_clamp: float) -> None:
    """The two fields that every correction has. Raises `ConfigError`."""
    require(
        against in ("behaviour", "raw"),
        "correction.against",
        wanted="'behaviour' or 'raw'",
        got=against,
        remedy="'behaviour' is the distribution really sampled from.",
    )
    require(
        0 < log_ratio_clamp <= 80,
        "correction.log_ratio_clamp",
        wanted="above 0 and at most 80, nats: exp must fit in float32",
        got=log_ratio_clamp,
        remedy="The usual value is 20.",
    )


def check_band(low: float, high: float) -> None:
    """Bounds of a ratio. Raises `ConfigError`."""
    require(
        0 <= low < 1 < high,
        "correction.low, correction.high",
        wanted="0 <= low < 1 < high, so that equal policies are inside",
        got=(low, high),
        remedy="low: 0 and high: 3 bound the ratio above only.",
    )
