"""Margins of features that are rows of a matrix times one number each: two matrix-vector products, and no feature is built.

With m = 2 (v - c) . d, d = mu_pos - mu_neg and c the midpoint, only inner products with d are needed. Its weights on the tokens
add up both sides in one product,

    d = sum u v,    u = w / M on the positive side, -w / M on the negative one, M the sum of w on the side,

and the midpoint's product is the mean of the centroids', which are means of tokens:
c . d = (mean_pos v . d + mean_neg v . d) / 2.
With v = s x both passes are products of the matrix of the x with a vector; s is part of u, then a factor of the result.

Float32 survives an offset common to all x. The second product is taken of x - r and r . d added in float64, r being near the
offset; what the rounding of u leaves out of the first is added with one x of the block in place of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_rank
from delta_lightning.functional.feature_geometry import MASS_FLOOR, FeatureGeometry
from delta_lightning.functional.sides import Sides, row_blocks


class ScaledRows(NamedTuple):
    """Features scale_N[:, None] * rows_ND; computed in the dtype of the scale, float32 at least."""

    scale_N: Tensor
    rows_ND: Tensor


class ScaledGeometry(FeatureGeometry):
    """The geometry of scaled rows: two passes over the rows for each answer.

    Args:
        chunks: returns an iterable over scaled rows, joined the N tokens in their order; called again for each pass; a rank
            without tokens may yield nothing. sides: which tokens are compared.
    """

    def __init__(self, chunks: Callable[[], Iterable[ScaledRows]], sides: Sides) -> None:
        super().__init__(self._written_out, sides)
        self._chunks = chunks
        self._width: int | None = None

    def margins(self, weights_2N: Tensor) -> Tensor:
        """See `Geometry`; three collectives, and one more the first time."""
        sides, units = self.sides, self.sides.unit_of_N
        masses_2U = sides.sums(weights_2N).clamp(min=MASS_FLOOR)
        positive_N, negative_N = weights_2N / masses_2U[:, units]
        directions_UD = self._directions(positive_N - negative_N)
        products_N = torch.empty_like(sides.advantages_N)
        near: tuple[Tensor, Tensor, Tensor] | None = None
        for part, scale_N, rows_ND in self._blocks():
            if near is None:
                origin_D = rows_ND.mean(0)  # any would do, but for rounding
                near = origin_D, directions_UD @ origin_D.double(), directions_UD.to(rows_ND.dtype)
            origin_D, offsets_U, to_UD = near
            centred_ND = rows_ND - origin_D
            dots_N = centred_ND @ to_UD[0] if len(to_UD) == 1 else (centred_ND * to_UD[units[part]]).sum(1)
            products_N[part] = (dots_N.double() + offsets_U[units[part]]) * scale_N
        midpoints_U = (sides.sums(weights_2N * products_N) / masses_2U).sum(0) / 2
        return 2 * (products_N - midpoints_U[units])

    def _directions(self, weights_N: Tensor) -> Tensor:
        """sum weight v of each unit over all ranks, [U, D] float64; within a block in the rows' precision."""
        sides = self.sides
        sums_UD: Tensor | None = None
        for part, scale_N, rows_ND in self._blocks():
            folded_N = weights_N[part] * scale_N
            cells_Un = folded_N[None] if sides.num_units == 1 else folded_N * sides.one_hot_NU(part).T
            rounded_Un = cells_Un.to(rows_ND.dtype)
            lost_U1 = (cells_Un - rounded_Un).sum(1, keepdim=True)
            partial_UD = (rounded_Un @ rows_ND).double() + lost_U1 * rows_ND[0].double()
            sums_UD = partial_UD if sums_UD is None else sums_UD.add_(partial_UD)
        if self._width is None:  # a rank without tokens learns it from the others
            width = 0 if sums_UD is None else sums_UD.shape[1]
            widths, ranks = sides.all_sum(weights_N.new_tensor([width, width > 0])).tolist()
            self._width = round(widths / max(1.0, ranks))
        return sides.all_sum(weights_N.new_zeros(sides.num_units, self._width) if sums_UD is None else sums_UD)

    def _written_out(self) -> Iterator[Tensor]:
        for _, scale_N, rows_ND in self._blocks():
            yield scale_N[:, None].to(rows_ND.dtype) * rows_ND

    def _blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Tokens, their scales in float64, their rows; in small blocks."""
        start, tokens = 0, len(self.sides.advantages_N)
        for scale_N, rows_ND in self._chunks():
            check_rank("a chunk of rows", rows_ND, 2)
            if len(scale_N) != len(rows_ND) or start + len(rows_ND) > tokens:
                raise ValueError(f"{len(scale_N)} scales and {len(rows_ND)} rows after {start} of {tokens} tokens")
            wide = torch.promote_types(scale_N.dtype, torch.float32)
            scale_N = scale_N.double()
            for part in row_blocks(*rows_ND.shape):
                yield slice(start + part.start, start + part.stop), scale_N[part], rows_ND[part].to(wide)
            start += len(rows_ND)
        if start != tokens:
            raise ValueError(f"there are {start} rows, but {tokens} advantages")
