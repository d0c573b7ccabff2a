"""DelTA's coefficients as sums, so that chunks and ranks add up (Zhang, Wu and Lin, arXiv 2605.21467, section 3, appendix H).

Tokens of responses with A > 0 and tokens of responses with A < 0 are two sides of a linear discriminator. A token whose
proxy v lies closer to its own side's centroid than to the other's says more about what separates good answers from bad
ones, and gets a larger coefficient. With a = |A|, own margin D = s m, s = sign(A), and m as below:

    mu_side  = sum_side w v / max(sum_side w, 1e-8)               w = a at first, then a * alpha
    m        = |v - mu_neg|^2 - |v - mu_pos|^2                    (`own_margin`)
    gamma    = sqrt(max(population variance of m on the side, 1e-8))    not weighted by a (`lagged_spread`)
    alpha    = sigmoid(D / gamma_side); 0 where A = 0             (`soft_gate`)
    lambda   = low + (high - low) * alpha                         (`range_map`)
    result   = lambda * N / sum lambda                            zero-advantage tokens count in both (`normalise`)

Each of K refinements recomputes the centroids with weight a * alpha. gamma lags by one refinement: the margins about the
centroids of refinement k give gamma of refinement k + 1, so with K <= 1 there is only one gamma.

`coefficients` is the algorithm. It sees tokens through a `Geometry`, never their features, and takes each step that the
paper ablates from `Rules`, as a function. Everything is summed over ranks by `Sides.all_sum`; every rank calls it the same
number of times whatever it holds. In [2, N] and [2, U] row 0 is the positive side; U counts units (see `functional.sides`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_rank
from delta_lightning.functional.feature_geometry import MASS_FLOOR, FeatureGeometry, Features, Geometry, centroids, margins
from delta_lightning.functional.sides import VARIANCE_FLOOR, AllSum, Sides, identity, row_blocks, side_mean, side_std

__all__ = [
    "Rules", "centroids", "coefficients", "delta_coefficients", "distance_scale", "first_spread", "gates", "geometric_median",
    "hard_gate", "identity", "lagged_spread", "margins", "normalise", "own_distance", "own_margin", "range_map", "row_blocks",
    "side_std", "side_weights", "soft_gate", "stream_coefficients", "unnormalised", "weighted_mean",
]  # fmt: skip

GAMMA_FLOOR = 1e-4  # the square root of the variance's
TIE = 1e-6  # own values below this share of gamma are ties: they are rounding
MEDIAN_FLOOR = 1e-6  # of the side's mean squared distance: a token nearer than a thousandth of the radius counts as that near


# ------------------------------------------------------------------------------------------------------------ the rules


def weighted_mean(geometry: Geometry, weights_2N: Tensor) -> Tensor:
    """The centroid is the weighted mean: the weights stay."""
    return weights_2N


def geometric_median(steps: int) -> Callable[[Geometry, Tensor], Tensor]:
    """The centroid is the point with the least weighted sum of (not squared) distances, by Weiszfeld's iteration.

    Starts at the weighted mean; each of `steps` divides the weights by the distance to the centroid so far. Squared distances
    are floored at 1e-6 of their mean over the side, so that a token on the median does not take all the weight.
    """

    def centre(geometry: Geometry, weights_2N: Tensor) -> Tensor:
        reweighted_2N = weights_2N
        for _ in range(steps):
            squares_N = geometry.own_distances(reweighted_2N)
            floor_N = geometry.sides.own(side_mean(squares_N, geometry.sides)) * MEDIAN_FLOOR
            reweighted_2N = weights_2N / squares_N.maximum(floor_N).clamp(min=VARIANCE_FLOOR).sqrt()
        return reweighted_2N

    return centre


def own_margin(geometry: Geometry, weights_2N: Tensor) -> Tensor:
    """D: how much closer the token is to its own centroid than to the other side's, in squared distance; [N]."""
    margins_N = geometry.margins(weights_2N)
    return torch.where(geometry.sides.advantages_N > 0, margins_N, -margins_N)


def own_distance(geometry: Geometry, weights_2N: Tensor) -> Tensor:
    """Minus the squared distance to the own centroid: the other side is not looked at; [N]."""
    return -geometry.own_distances(weights_2N)


Scale = Callable[[Geometry, Tensor, Tensor, Tensor | None], Tensor]


def lagged_spread(geometry: Geometry, weights_2N: Tensor, own_N: Tensor, before_2U: Tensor | None) -> Tensor:
    """gamma: standard deviation of the own values on the side, taken anew from the values before each refinement; [2, U]."""
    return side_std(own_N, geometry.sides)


def first_spread(geometry: Geometry, weights_2N: Tensor, own_N: Tensor, before_2U: Tensor | None) -> Tensor:
    """gamma of the first values, kept. Equal to `lagged_spread` for K <= 1; [2, U]."""
    return side_std(own_N, geometry.sides) if before_2U is None else before_2U


def distance_scale(geometry: Geometry, weights_2N: Tensor, own_N: Tensor, before_2U: Tensor | None) -> Tensor:
    """Mean squared distance of the side's tokens from their first centroid, not weighted by |A|, kept; [2, U].

    The literal reading of "initial distance scale". Floored at 1e-4, where the other rules are.
    """
    if before_2U is not None:
        return before_2U
    return side_mean(geometry.own_distances(weights_2N), geometry.sides).clamp(min=GAMMA_FLOOR)


def soft_gate(scaled_N: Tensor) -> Tensor:
    """alpha = sigmoid(D / gamma): the maximiser over [0, 1] of alpha D + gamma h(alpha), h the binary entropy."""
    return torch.sigmoid(scaled_N)


def hard_gate(scaled_N: Tensor) -> Tensor:
    """The maximiser without the entropy term: 1 for D > 0, 0 for D < 0; 1/2 for ties, |D| <= 1e-6 gamma."""
    return torch.where(scaled_N.abs() <= TIE, 0.5, (scaled_N > 0).double())


def normalise(values_N: Tensor, sides: Sides) -> Tensor:
    """lambda N / Z, so that the mean over the tokens of each unit is 1; one collective."""
    counts_U, totals_U = sides.sums(torch.stack([torch.ones_like(values_N), values_N])).unbind()
    return values_N * (counts_U / totals_U.clamp(min=MASS_FLOOR))[sides.unit_of_N]


def unnormalised(values_N: Tensor, sides: Sides) -> Tensor:
    """lambda itself."""
    return values_N


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The steps that the paper ablates, as functions; the defaults are the published method.

    Attributes:
        centre: weights of the tokens -> weights whose weighted mean is the centroid.
        own: the own values D of the tokens about those centroids. scale: gamma, from D and the gamma before (None at first).
        gate: alpha of D / gamma, before tokens with A = 0 are set to 0. normaliser: the last step.
    """

    centre: Callable[[Geometry, Tensor], Tensor] = weighted_mean
    own: Callable[[Geometry, Tensor], Tensor] = own_margin
    scale: Scale = lagged_spread
    gate: Callable[[Tensor], Tensor] = soft_gate
    normaliser: Callable[[Tensor, Sides], Tensor] = normalise


PUBLISHED = Rules()


# -------------------------------------------------------------------------------------------------------- the algorithm


@torch.no_grad()
def coefficients(
    geometry: Geometry,
    *,
    refinements: int = 1,
    low: float = 0.8,
    high: float = 1.2,
    rules: Rules = PUBLISHED,
    agree: AllSum | None = None,
) -> Tensor:
    """lambda of each token, [N] float64.

    1 for every token of a unit in which a side has no tokens: one centroid alone separates nothing.

    Args:
        geometry: the tokens. refinements: K. low: coefficient of a token with gate 0, before normalisation. high: with gate 1.
        rules: the steps. agree: sum over all ranks, if that is not `geometry.sides.all_sum`: ranks decide together to skip
            everything where no unit has two sides, so that none waits for another.
    """
    sides = geometry.sides
    two_sided_U = sides.two_sided_U()
    ones_N = torch.ones_like(sides.advantages_N)
    if not bool((agree or identity)(two_sided_U.double().sum()) > 0):
        return ones_N
    weights_2N = sides.weights_2N
    centred_2N = rules.centre(geometry, weights_2N)
    own_N = rules.own(geometry, centred_2N)
    gammas_2U = rules.scale(geometry, centred_2N, own_N, None)
    for _ in range(refinements):
        alpha_N = gates(own_N, gammas_2U, sides, rules.gate)
        gammas_2U = rules.scale(geometry, centred_2N, own_N, gammas_2U)
        centred_2N = rules.centre(geometry, weights_2N * alpha_N)
        own_N = rules.own(geometry, centred_2N)
    lambda_N = range_map(gates(own_N, gammas_2U, sides, rules.gate), low=low, high=high)
    return torch.where(two_sided_U[sides.unit_of_N], rules.normaliser(lambda_N, sides), ones_N)


def gates(own_N: Tensor, gammas_2U: Tensor, sides: Sides, gate: Callable[[Tensor], Tensor] = soft_gate) -> Tensor:
    """alpha from the own values, scaled by gamma of the token's side and unit; exactly 0 where A = 0."""
    return gate(own_N / sides.own(gammas_2U)) * (sides.advantages_N != 0)


def range_map(gates_N: Tensor, *, low: float, high: float) -> Tensor:
    """lambda = low + (high - low) alpha: exactly `low` for a gate of 0."""
    return low + (high - low) * gates_N


def side_weights(advantages_N: Tensor) -> Tensor:
    """|A| on the token's own side, 0 on the other; [2, N] float64."""
    return Sides(advantages_N).weights_2N


# ---------------------------------------------------------------------------------------------------- explicit features


def delta_coefficients(
    features_ND: Tensor,
    advantages_N: Tensor,
    *,
    refinements: int = 1,
    low: float = 0.8,
    high: float = 1.2,
    all_sum: AllSum = identity,
) -> Tensor:
    """Normalised coefficients of N trained tokens by the published rules, [N]: their mean over all ranks is 1.

    Args:
        features_ND: proxy features v of each token, for example (1 - p) h.
        advantages_N: the advantage of each token's response.
        refinements: K, how often the centroids are recomputed with gated weights.
        low: coefficient of a token with gate 0, before normalisation. high: of a token with gate 1.
        all_sum: sum over data-parallel ranks. A rank without tokens passes [0, D] and [0].

    Returns:
        float64 for float64 features, float32 otherwise; without gradient.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_rank("features_ND", features_ND, 2)
    dtype = torch.promote_types(features_ND.dtype, torch.float32)
    with torch.no_grad():
        coefficients_N = stream_coefficients(
            lambda: (features_ND,), advantages_N, refinements=refinements, low=low, high=high, all_sum=all_sum
        )
    return coefficients_N.to(dtype)


@torch.no_grad()
def stream_coefficients(
    features: Features,
    advantages_N: Tensor,
    *,
    refinements: int = 1,
    low: float = 0.8,
    high: float = 1.2,
    all_sum: AllSum = identity,
) -> Tensor:
    """`delta_coefficients` for features that come in chunks, again at each call: nothing of shape [N, D] is built.

    Iterates over the features 2 + 2 K times, or not at all where the answer is 1 for every token: `low == high`, or a side
    without tokens on any rank.

    Args:
        features: returns an iterable over chunks [n, D] whose rows, joined, are the N tokens in their order; a rank without
            tokens may yield nothing. advantages_N, refinements, low, high, all_sum: as in `delta_coefficients`.

    Returns:
        float64, [N].
    """
    sides = Sides(advantages_N, all_sum=all_sum)
    if low == high:
        return torch.ones_like(sides.advantages_N)
    return coefficients(FeatureGeometry(features, sides), refinements=refinements, low=low, high=high)
