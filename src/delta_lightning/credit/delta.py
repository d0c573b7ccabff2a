"""DelTA: discriminative token credit assignment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.credit.proxies import GradientProxy, OutputRow
from delta_lightning.credit.proxies.tokens import TokenStream
from delta_lightning.errors import require
from delta_lightning.functional import delta as rules
from delta_lightning.functional.logprobs import scatter_tokens
from delta_lightning.functional.sides import Sides, group_units, identity
from delta_lightning.interfaces import NOTHING, CreditAssigner, StepView
from delta_lightning.types import Credit, Need


@dataclass(frozen=True, kw_only=True)
class Delta(CreditAssigner):
    """DelTA (Zhang, Wu and Lin, arXiv 2605.21467): tokens that tell good answers from bad ones count more.

    Each trained token has a vector v that stands for the gradient of its log-probability (`proxy`). On each side of the
    advantage's sign, a centroid of v is taken; a token closer to its own centroid than to the other gets a gate alpha above
    1/2. The coefficient is low + (high - low) alpha, divided by its mean over all trained tokens of the rollout step, on all
    ranks. Tokens of responses with advantage 0 get `low` before that division. The exact formulas are in `functional.delta`.

    If no response has a positive advantage, or none a negative one, all coefficients are 1 (in every group for itself with
    `scope: group`, on every rank for itself with `scope: rank`). Not so in the official code.

    The defaults are the published method. The paper's ablations are `refinements`, `low` and `high` (0 and 1: no range map),
    `proxy`, `evidence`, `gamma: first_distance`, `gate`, `normaliser` and, in its sources only, `centroid`; each row is an
    overlay in `configs/ablation/`. `scope`, `gamma: first_spread` and `median_steps` are no rows of it.

    Args:
        refinements: K, how often the centroids are recomputed with gated weights; at least 0. The paper uses 1.
        low: coefficient of a token with gate 0, before normalisation; at least 0.
        high: coefficient of a token with gate 1, before normalisation; above 0 and at least `low`. With `low == high` credit
            is uniform, and with `normaliser: mean_one` exactly `Uniform`.
        proxy: what stands for a token's gradient: OutputRow (published default), TopKHiddenGradient (published ablation),
            HiddenGradient, HeadGradient.
        evidence: "margin" compares with both centroids; "within_side" gates by sigmoid(-|v - own centroid|^2 / gamma).
        gamma: "lagged" is the standard deviation of the evidence on each side, taken anew before each refinement;
            "first_spread" keeps the first one, which changes nothing for K <= 1; "first_distance" keeps the side's mean squared
            distance from its first centroid, our reading of the paper's "initial distance scale".
        gate: "soft" is the sigmoid; "hard" is 0 or 1 by the sign of the evidence, 1/2 for ties within 1e-6 gamma.
        centroid: "mean", weighted; "geometric_median" has the least sum of distances, our reading of the "l2 centroid" that is
            in the paper's sources and not in its text.
        median_steps: Weiszfeld iterations of a geometric median; at least 1. Not published: our choice.
        normaliser: "mean_one" divides by the mean coefficient; "none" does not.
        scope: whose tokens are compared: "all_ranks", the whole rollout step; "group", each prompt's alone (the paper's
            equations), N / Z included; "rank", those of each rank (the official code), so that results depend on their number.

    Raises:
        ConfigError: a field out of range, or an advantage estimator that gives one advantage per token.
    """

    refinements: int = 1
    low: float = 0.8
    high: float = 1.2
    proxy: GradientProxy = OutputRow()  # noqa: RUF009 -- immutable
    evidence: Literal["margin", "within_side"] = "margin"
    gamma: Literal["lagged", "first_spread", "first_distance"] = "lagged"
    gate: Literal["soft", "hard"] = "soft"
    centroid: Literal["mean", "geometric_median"] = "mean"
    median_steps: int = 10
    normaliser: Literal["mean_one", "none"] = "mean_one"
    scope: Literal["all_ranks", "group", "rank"] = "all_ranks"

    def __post_init__(self) -> None:
        require(
            self.refinements >= 0,
            "credit.refinements",
            wanted="at least 0",
            got=self.refinements,
            remedy="The paper uses 1; 0 turns refinement off.",
        )
        require(self.low >= 0, "credit.low", wanted="at least 0", got=self.low, remedy="The paper uses 0.8.")
        require(self.high > 0, "credit.high", wanted="above 0", got=self.high, remedy="The paper uses 1.2.")
        require(
            self.low <= self.high,
            "credit.low",
            wanted=f"at most credit.high ({self.high})",
            got=self.low,
            remedy="Swap the two, or make them equal for uniform credit.",
        )
        steps = self.median_steps
        require(steps >= 1, "credit.median_steps", wanted="at least 1", got=steps, remedy="0 steps would be `centroid: mean`.")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            require(value in choices, f"credit.{name}", wanted=" or ".join(choices), got=value, remedy="Choose one of these.")
        require(
            (self.evidence, self.gate) != ("within_side", "hard"),
            "credit.gate",
            wanted="soft gates with within_side evidence",
            got=self.gate,
            remedy="That evidence is never above 0, so every hard gate would be closed. Use evidence: margin, or soft gates.",
        )

    def credit(self, view: StepView) -> Credit:
        """One coefficient per trained token, [B, T]; float32, or float64 for float64 models."""
        mask_BT = view.batch.loss_mask_BT
        if self.low == self.high:
            return Credit(scale_BT=mask_BT.to(torch.float32) * (1.0 if self.normaliser == "mean_one" else self.low))
        tokens = TokenStream(view)
        sides = _SCOPES[self.scope](view, _advantages_per_token(view))
        coefficients_N = rules.coefficients(
            self.proxy.bind(tokens, sides),
            refinements=self.refinements,
            low=self.low,
            high=self.high,
            rules=self.rules(),
            agree=view.all_sum if self.scope == "rank" else None,
        )
        return Credit(scale_BT=scatter_tokens(coefficients_N.to(tokens.dtype), mask_BT))

    def rules(self) -> rules.Rules:
        """The functions that the fields name."""
        centres = {"mean": rules.weighted_mean, "geometric_median": rules.geometric_median(self.median_steps)}
        return rules.Rules(
            centre=centres[self.centroid],
            own=_EVIDENCE[self.evidence],
            scale=_GAMMAS[self.gamma],
            gate=_GATES[self.gate],
            normaliser=_NORMALISERS[self.normaliser],
        )

    def needs(self) -> frozenset[Need]:
        """What the proxy needs; nothing if credit is uniform anyway."""
        return NOTHING if self.low == self.high else self.proxy.needs()

    def token_level(self) -> bool:
        """Credit differs between tokens unless `low == high`."""
        return self.low != self.high

    def cut_dependent(self) -> bool:
        """Only with statistics of each rank."""
        return self.scope == "rank" and self.token_level()

    def per_response(self) -> bool:
        """Sides are made of responses."""
        return True


def _all_ranks(view: StepView, advantages_N: Tensor) -> Sides:
    return Sides(advantages_N, all_sum=view.all_sum)


def _group(view: StepView, advantages_N: Tensor) -> Sides:
    """Summed over ranks too, so that a group may be split over them."""
    mask_BT = view.batch.loss_mask_BT
    ids_N = view.batch.group_ids_B[:, None].expand(mask_BT.shape)[mask_BT]
    units_N, count = group_units(ids_N, all_sum=view.all_sum)
    return Sides(advantages_N, units_N, count, view.all_sum)


def _rank(view: StepView, advantages_N: Tensor) -> Sides:
    return Sides(advantages_N, all_sum=identity)


_SCOPES: dict[str, Callable[[StepView, Tensor], Sides]] = {"all_ranks": _all_ranks, "group": _group, "rank": _rank}
_EVIDENCE = {"margin": rules.own_margin, "within_side": rules.own_distance}
_GAMMAS = {"lagged": rules.lagged_spread, "first_spread": rules.first_spread, "first_distance": rules.distance_scale}
_GATES = {"soft": rules.soft_gate, "hard": rules.hard_gate}
_NORMALISERS = {"mean_one": rules.normalise, "none": rules.unnormalised}
_CENTROIDS = ("mean", "geometric_median")
_CHOICES = {
    "evidence": tuple(_EVIDENCE), "gamma": tuple(_GAMMAS), "gate": tuple(_GATES), "centroid": _CENTROIDS,
    "normaliser": tuple(_NORMALISERS), "scope": tuple(_SCOPES),
}  # fmt: skip


def _advantages_per_token(view: StepView) -> Tensor:
    """The advantage of each trained token's response, [N]; rows in order, tokens in order."""
    advantages = view.advantages
    if advantages is None:
        raise ValueError("credit.Delta: the advantages must be known before credit is assigned")
    require(
        advantages.ndim == 1,
        "credit.Delta",
        wanted="one advantage per response, [B]",
        got=f"shape {list(advantages.shape)}",
        remedy="Choose an advantage estimator without a baseline per token, or another credit assigner.",
    )
    mask_BT = view.batch.loss_mask_BT
    return advantages[:, None].expand(mask_BT.shape)[mask_BT]
