"""Every proxy's margins and coefficients on one recorded rollout step, beside the true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.proxies.compare import UNSURE, Tokens, agreement, coefficient_agreement, pearson
from benchmarks.proxies.record import Recorded
from benchmarks.proxies.truth import TiedGeometry, forward_mode, token_logprobs
from torch import Tensor

from delta_lightning.credit.proxies import GradientProxy, HeadGradient, HiddenGradient, OutputRow, TopKHiddenGradient
from delta_lightning.credit.proxies.tokens import TokenStream
from delta_lightning.functional.delta import Rules, coefficients, own_margin
from delta_lightning.functional.feature_geometry import Geometry
from delta_lightning.functional.sides import Sides
from delta_lightning.models.scorer import Scorer
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.view import RolloutView
from delta_lightning.types import Need

PROXIES: dict[str, GradientProxy] = {
    "OutputRow": OutputRow(),
    "TopKHiddenGradient, k = 2": TopKHiddenGradient(k=2),
    "TopKHiddenGradient, k = 8": TopKHiddenGradient(k=8),
    "TopKHiddenGradient, k = 32": TopKHiddenGradient(k=32),
    "HiddenGradient": HiddenGradient(),
    "HeadGradient": HeadGradient(),
}
SHARES = {"body": "true, body only", "embedding": "true, embedding's input only", "untied": "true, as if untied"}


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Own margins about the first centroids, [N], and DelTA's coefficients with K = 1, [N]; None where there are none."""

    own_N: Tensor | None = None
    coefficients_N: Tensor | None = None


def ranking(geometry: Geometry) -> Ranking:
    """By the published rules."""
    seen: list[Tensor] = []

    def own(geometry: Geometry, weights_2N: Tensor) -> Tensor:
        seen.append(own_margin(geometry, weights_2N))
        return seen[-1]

    found_N = coefficients(geometry, refinements=1, rules=Rules(own=own))
    return Ranking(own_N=seen[0], coefficients_N=found_N)


def measure(model: Any, step: Recorded, *, temperature: float, seed: int) -> dict[str, Any]:
    """Agreement of every proxy with the true gradient of `model`, over tokens with A other than 0."""
    model = forward_mode(model)
    batch = step.batch
    mask_BT = batch.loss_mask_BT
    sides = Sides(step.advantages_B[:, None].expand(mask_BT.shape)[mask_BT])
    view = RolloutView(
        batch, micro=step.micro, scorer=Scorer(model=model, temperature=temperature),
        needs=frozenset({Need.HIDDEN, Need.HEAD}), cache=HiddenCache(), ranks=Ranks(), seed=(seed, 0),
    )  # fmt: skip
    whole = TiedGeometry(model, token_logprobs(model, batch, temperature=temperature), sides)
    truth = ranking(whole)
    shares = whole.shares(sides.weights_2N)
    rankings = {name: ranking(proxy.bind(TokenStream(view), sides)) for name, proxy in PROXIES.items()}
    signs_N = sides.advantages_N.sign()
    rankings |= {label: Ranking(own_N=signs_N * shares[part]) for part, label in SHARES.items()}
    logprobs_N = view.logprobs_BT()[mask_BT].double()
    draws = torch.Generator().manual_seed(seed)
    rankings |= {
        "1 - p (control)": Ranking(own_N=-torch.expm1(logprobs_N)),
        "random (control)": Ranking(own_N=torch.rand(len(signs_N), generator=draws, dtype=torch.float64) - 0.5),
    }
    rankings["all equal (control)"] = Ranking(coefficients_N=torch.ones_like(signs_N))
    kept_N = signs_N != 0
    p_N = logprobs_N.exp()
    tokens = Tokens(positive_N=signs_N[kept_N] > 0, unsure_N=p_N[kept_N] < UNSURE)
    head, true_head = rankings["HeadGradient"].own_N, signs_N * shares["head"]
    assert head is not None and truth.coefficients_N is not None
    gap = (head / temperature**2 - true_head)[kept_N].abs().max() / true_head[kept_N].abs().max()
    return {
        "tokens": int(kept_N.sum()),
        "tokens A>0": int(tokens.positive_N.sum()),
        "tokens p<0.9": int(tokens.unsure_N.sum()),
        "reward": float(batch.rewards_B.double().mean()),
        "mean p": float(p_N[kept_N].mean()),
        "head_error": float(gap),
        "true coefficient std": {
            name: float(truth.coefficients_N[kept_N][which].std(correction=0)) for name, which in tokens.cells().items()
        },
        "agreement": {name: compared(truth, other, kept_N, tokens) for name, other in rankings.items()},
        "with 1 - p": {name: with_surprise(rankings[name], 1 - p_N[kept_N], kept_N, tokens) for name in PROXIES},
        "length": whole.lengths(sides.weights_2N),
    }


def with_surprise(ranking: Ranking, surprise_N: Tensor, kept_N: Tensor, tokens: Tokens) -> dict[str, float | None]:
    """Pearson's correlation of own margins with 1 - p, by side; that of the true margins is in the row of the control."""
    assert ranking.own_N is not None
    own_N, sides = ranking.own_N[kept_N], {"A>0": tokens.positive_N, "A<0": ~tokens.positive_N}
    return {side: pearson(own_N[which], surprise_N[which]) for side, which in sides.items()}


def compared(truth: Ranking, other: Ranking, kept_N: Tensor, tokens: Tokens) -> dict[str, float | None]:
    """All measures over tokens on a side."""
    found: dict[str, float | None] = {}
    if other.own_N is not None and truth.own_N is not None:
        found |= agreement(truth.own_N[kept_N], other.own_N[kept_N], tokens)
    if other.coefficients_N is not None and truth.coefficients_N is not None:
        found |= coefficient_agreement(truth.coefficients_N[kept_N], other.coefficients_N[kept_N], tokens)
    return found
