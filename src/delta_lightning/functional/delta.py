"""DelTA's coefficients as sums, so that chunks and ranks add up (Zhang, Wu and Lin, arXiv 2605.21467, section 3, appendix H).

Tokens of responses with A > 0 and tokens of responses with A < 0 are two sides of a linear discriminator. A token whose
proxy v lies closer to its own side's centroid than to the other's says more about what separates good answers from bad
ones, and gets a larger coefficient. With a = |A|, own margin D = s m, s = sign(A), and m as below:

    mu_side  = sum_side w v / max(sum_side w, 1e-8)               w = a at first, then a * alpha (`centroids`)
    m        = |v - mu_neg|^2 - |v - mu_pos|^2                    (`margins`)
    gamma    = sqrt(max(population variance of m on the side, 1e-8))    not weighted by a (`side_std`)
    alpha    = sigmoid(D / gamma_side); 0 where A = 0             (`gates`)
    lambda   = low + (high - low) * alpha                         (`range_map`)
    result   = lambda * N / sum lambda                            zero-advantage tokens count in both (`normalise`)

Each of K refinements recomputes the centroids with weight a * alpha. gamma lags by one refinement: the margins about the
centroids of refinement k give gamma of refinement k + 1, so with K <= 1 there is only one gamma.

Every function takes `all_sum`, the sum over ranks, and calls it the same number of times whatever this rank holds. In
[2]-shaped and [2, N]-shaped tensors row 0 is the positive side, row 1 the negative one. Scalars are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_rank

AllSum = Callable[[Tensor], Tensor]
Features = Callable[[], Iterable[Tensor]]

MASS_FLOOR = 1e-8
VARIANCE_FLOOR = 1e-8
BLOCK_ELEMENTS = 1 << 20  # of a temporary [n, D]: 4 MiB in float32, which stays in a CPU's cache


def identity(value: Tensor) -> Tensor:
    """The sum over one rank."""
    return value


def delta_coefficients(
    features_ND: Tensor,
    advantages_N: Tensor,
    *,
    refinements: int = 1,
    low: float = 0.8,
    high: float = 1.2,
    all_sum: AllSum = identity,
) -> Tensor:
    """Normalised coefficients of N trained tokens, [N]: their mean over all ranks is 1.

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
    without tokens on any rank (one centroid alone separates nothing).

    Args:
        features: returns an iterable over chunks [n, D] whose rows, joined, are the N tokens in their order; a rank without
            tokens may yield nothing. advantages_N, refinements, low, high, all_sum: as in `delta_coefficients`.

    Returns:
        float64, [N].
    """
    check_rank("advantages_N", advantages_N, 1)
    signed_N = advantages_N.double()
    ones_N = torch.ones_like(signed_N)
    if low == high:
        return ones_N
    weights_2N = side_weights(signed_N)
    if bool((all_sum(weights_2N.sum(1)) == 0).any()):
        return ones_N
    margins_N = margins(features, centroids(features, weights_2N, all_sum=all_sum), like=signed_N)
    gammas_2 = side_std(margins_N, signed_N, all_sum=all_sum)
    for refinement in range(refinements):
        gates_N = gates(margins_N, signed_N, gammas_2)
        if refinement > 0:
            gammas_2 = side_std(margins_N, signed_N, all_sum=all_sum)
        margins_N = margins(features, centroids(features, weights_2N * gates_N, all_sum=all_sum), like=signed_N)
    gates_N = gates(margins_N, signed_N, gammas_2)
    return normalise(range_map(gates_N, low=low, high=high), all_sum=all_sum)


def side_weights(advantages_N: Tensor) -> Tensor:
    """|A| on the token's own side, 0 on the other; [2, N] float64."""
    signed_N = advantages_N.double()
    return torch.stack([signed_N.clamp(min=0), (-signed_N).clamp(min=0)])


def centroids(features: Features, weights_2N: Tensor, *, all_sum: AllSum = identity) -> Tensor:
    """Weighted mean of the features on each side, [2, D] float64; one pass, two collectives.

    Summed in float64, block by block: float32 sums would be the largest error of all where features share an offset.
    """
    sums_2D: Tensor | None = None
    for part, block in _blocks(features, weights_2N.shape[1]):
        partial_2D = weights_2N[:, part] @ block.double()
        sums_2D = partial_2D if sums_2D is None else sums_2D + partial_2D
    # A rank without tokens learns the width D from the others; the side's mass travels in the same collective.
    width = 0 if sums_2D is None else sums_2D.shape[1]
    tally = torch.cat([weights_2N.sum(1), weights_2N.new_tensor([width, width > 0])])
    mass_pos, mass_neg, widths, ranks = all_sum(tally).unbind()
    if sums_2D is None:
        sums_2D = weights_2N.new_zeros(2, round(float(widths) / max(1.0, float(ranks))))
    mass_2 = torch.stack([mass_pos, mass_neg]).clamp(min=MASS_FLOOR)
    return all_sum(sums_2D) / mass_2[:, None]


def margins(features: Features, centroids_2D: Tensor, *, like: Tensor) -> Tensor:
    """m = |v - mu_neg|^2 - |v - mu_pos|^2, in the shape of `like`, [N] float64; one pass, no collective.

    Computed as 2 (v - c) . d with c the midpoint and d = mu_pos - mu_neg: equal in exact arithmetic, and the only form that
    survives a large offset common to all features, because the offset is subtracted before anything is multiplied.
    """
    positive_D, negative_D = centroids_2D.unbind()
    midpoint_D, direction_D = (positive_D + negative_D) / 2, positive_D - negative_D
    margins_N = torch.empty_like(like, dtype=torch.float64)
    for part, block in _blocks(features, len(like)):
        centred = block - midpoint_D.to(block.dtype)
        margins_N[part] = (2 * (centred @ direction_D.to(block.dtype))).double()
    return margins_N


def side_std(margins_N: Tensor, advantages_N: Tensor, *, all_sum: AllSum = identity) -> Tensor:
    """gamma: population standard deviation of the margins on each side, [2] float64; two collectives.

    Not weighted by |A|; the variance is floored at 1e-8. Two passes, centred first: E[m^2] - E[m]^2 would cancel.
    """
    sides_2N = torch.stack([advantages_N > 0, advantages_N < 0]).double()
    totals_22 = all_sum(torch.stack([sides_2N.sum(1), sides_2N @ margins_N]))
    counts_2 = totals_22[0].clamp(min=1)
    centred_2N = (margins_N - (totals_22[1] / counts_2)[:, None]) * sides_2N
    variances_2 = all_sum(centred_2N.square().sum(1)) / counts_2
    return variances_2.clamp(min=VARIANCE_FLOOR).sqrt()


def gates(margins_N: Tensor, advantages_N: Tensor, gammas_2: Tensor) -> Tensor:
    """alpha = sigmoid(own margin / own gamma), exactly 0 where A = 0.

    In closed form the maximiser over [0, 1] of alpha D + gamma h(alpha), with h the binary entropy.
    """
    scaled_N = torch.where(advantages_N > 0, margins_N / gammas_2[0], -margins_N / gammas_2[1])
    return torch.sigmoid(scaled_N) * (advantages_N != 0)


def range_map(gates_N: Tensor, *, low: float, high: float) -> Tensor:
    """lambda = low + (high - low) alpha: exactly `low` for a gate of 0."""
    return low + (high - low) * gates_N


def normalise(values_N: Tensor, *, all_sum: AllSum = identity) -> Tensor:
    """lambda N / Z, so that the mean over the tokens of all ranks is 1; one collective."""
    count, total = all_sum(torch.stack([values_N.new_tensor(float(len(values_N))), values_N.sum()])).unbind()
    return values_N * (count / total.clamp(min=MASS_FLOOR))


def row_blocks(rows: int, width: int) -> list[slice]:
    """Slices of `rows` whose [n, width] temporaries stay small."""
    step = max(1, BLOCK_ELEMENTS // max(1, width))
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]


def _blocks(features: Features, tokens: int) -> Iterator[tuple[slice, Tensor]]:
    """The features in small blocks, float32 at least, with the tokens that they belong to: `tokens` in all."""
    start = 0
    for chunk in features():
        check_rank("a chunk of features", chunk, 2)
        if start + len(chunk) > tokens:
            raise ValueError(f"features have at least {start + len(chunk)} rows, but there are {tokens} advantages")
        dtype = torch.promote_types(chunk.dtype, torch.float32)
        if len(chunk) == 0:
            # Its width still counts: this rank may hold no other row.
            yield slice(start, start), chunk.to(dtype)
        for part in row_blocks(*chunk.shape):
            yield slice(start + part.start, start + part.stop), chunk[part].to(dtype)
        start += len(chunk)
    if start != tokens:
        raise ValueError(f"features have {start} rows, but there are {tokens} advantages")
