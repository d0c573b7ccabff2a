"""Centroids, margins and distances of token features that come in chunks: nothing of shape [N, D] is built.

A geometry is what DelTA knows of a proxy: it turns weights of tokens into margins and distances, and never shows features.
`functional.head_geometry` has another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_rank
from delta_lightning.functional.sides import Sides, row_blocks

Features = Callable[[], Iterable[Tensor]]

MASS_FLOOR = 1e-8


class Geometry(Protocol):
    """The tokens' places in a space of gradients, as seen from the centroids mu of weighted sides.

    Laws: results are float64, finite, independent of chunks, and of the split over the ranks that share `sides`; every rank
    makes the same collectives. Where A = 0 they are of no meaning.
    """

    @property
    def sides(self) -> Sides:
        """Which tokens are compared."""
        ...

    def margins(self, weights_2N: Tensor) -> Tensor:
        """|v - mu_neg|^2 - |v - mu_pos|^2 = 2 (v - c) . d with c = (mu_pos + mu_neg) / 2 and d = mu_pos - mu_neg; [N]."""
        ...

    def own_distances(self, weights_2N: Tensor) -> Tensor:
        """|v - mu|^2 to the centroid of the token's own side; [N]."""
        ...


class FeatureGeometry:
    """The geometry of explicit features: two passes over them for each answer.

    Args:
        features: returns an iterable over chunks [n, D] whose rows, joined, are the N tokens in their order; called again for
            each pass; a rank without tokens may yield nothing.
        sides: which tokens are compared.
    """

    def __init__(self, features: Features, sides: Sides) -> None:
        self.features, self._sides = features, sides

    @property
    def sides(self) -> Sides:
        """Which tokens are compared."""
        return self._sides

    def margins(self, weights_2N: Tensor) -> Tensor:
        """See `Geometry`."""
        return margins(self.features, centroids(self.features, weights_2N, self.sides), self.sides)

    def own_distances(self, weights_2N: Tensor) -> Tensor:
        """See `Geometry`."""
        return own_distances(self.features, centroids(self.features, weights_2N, self.sides), self.sides)


def centroids(features: Features, weights_2N: Tensor, sides: Sides) -> Tensor:
    """Weighted mean of the features on each side of each unit, [2, U, D] float64; one pass, two collectives.

    Summed in float64, block by block: float32 sums would be the largest error of all where features share an offset.
    """
    units = sides.num_units
    sums_CD: Tensor | None = None
    for part, block in _blocks(features, weights_2N.shape[1]):
        partial_CD = sides.cell_weights(weights_2N, part) @ block.double()
        sums_CD = partial_CD if sums_CD is None else sums_CD + partial_CD
    # A rank without tokens learns the width D from the others; the sides' masses travel in the same collective.
    width = 0 if sums_CD is None else sums_CD.shape[1]
    tally = torch.cat([sides.local_sums(weights_2N).flatten(), weights_2N.new_tensor([width, width > 0])])
    *_, widths, ranks = (total := sides.all_sum(tally)).tolist()
    if sums_CD is None:
        sums_CD = weights_2N.new_zeros(2 * units, round(widths / max(1.0, ranks)))
    means_CD = sides.all_sum(sums_CD) / total[:-2, None].clamp(min=MASS_FLOOR)
    return means_CD.reshape(2, units, -1)


def margins(features: Features, centroids_2UD: Tensor, sides: Sides) -> Tensor:
    """m = |v - mu_neg|^2 - |v - mu_pos|^2 about the centroids of each token's unit, [N] float64; one pass, no collective.

    Computed as 2 (v - c) . d with c the midpoint and d = mu_pos - mu_neg: equal in exact arithmetic, and the only form that
    survives a large offset common to all features, because the offset is subtracted before anything is multiplied.
    """
    positive_UD, negative_UD = centroids_2UD.unbind()
    midpoints_UD, directions_UD = (positive_UD + negative_UD) / 2, positive_UD - negative_UD
    margins_N = torch.empty_like(sides.advantages_N)
    for part, block in _blocks(features, len(margins_N)):
        centred = block - _of_units(midpoints_UD, sides, part, block)
        margins_N[part] = (2 * _dot(centred, _of_units(directions_UD, sides, part, block))).double()
    return margins_N


def own_distances(features: Features, centroids_2UD: Tensor, sides: Sides) -> Tensor:
    """|v - mu|^2 to the centroid of each token's own side and unit, [N] float64; one pass, no collective."""
    distances_N = torch.empty_like(sides.advantages_N)
    for part, block in _blocks(features, len(distances_N)):
        to_2n = torch.stack([(block - _of_units(side_UD, sides, part, block)).square().sum(1) for side_UD in centroids_2UD])
        distances_N[part] = torch.where(sides.advantages_N[part] < 0, to_2n[1], to_2n[0]).double()
    return distances_N


def _of_units(values_UD: Tensor, sides: Sides, part: slice, like: Tensor) -> Tensor:
    """The row of each token's unit; one row for all where there is one unit, so that the usual case copies nothing."""
    values_UD = values_UD.to(like.dtype)
    return values_UD if sides.num_units == 1 else values_UD[sides.unit_of_N[part]]


def _dot(left_ND: Tensor, right_ND: Tensor) -> Tensor:
    """Row by row; `right_ND` may be one row for all."""
    return left_ND @ right_ND[0] if len(right_ND) == 1 else (left_ND * right_ND).sum(1)


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
