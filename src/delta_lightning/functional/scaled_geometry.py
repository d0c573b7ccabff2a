"""Margins of features that are rows of a matrix times one number each: two matrix-vector products, and no feature is built.

With m = 2 (v - c) . d, d = mu_pos - mu_neg and c the midpoint, only inner products with d are needed. Its weights on the tokens
add up both sides in one product,

    d = sum u v,    u = w / M on the positive side, -w / M on the negative one, M the sum of w on the side,

and the midpoint's product is the mean of the centroids', which are means of tokens:
c . d = (mean_pos v . d + mean_neg v . d) / 2.
With v = s x both passes are products of the matrix of the x with a vector; s is part of u, then a factor of the result.

Float32 survives an offset common to all x. The second product is taken of x - r and r . d added in float64, r being the mean of
some x; without an offset that is left out, for it costs as much as the product. What the rounding of u leaves out of the first
product is added with one x in place of each.
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


class _Origin(NamedTuple):
    """A point that is subtracted from rows to keep float32 products small; 0, and not subtracted, where that gains nothing."""

    point_D: Tensor
    zero: bool

    @classmethod
    def near(cls, rows_ND: Tensor) -> _Origin:
        """The mean of the rows, if its square is more than a tenth of their mean squared distance from it."""
        mean_D = rows_ND.mean(0)
        if bool(mean_D.square().sum() > 0.1 * (rows_ND - mean_D).square().sum(1).mean()):
            return cls(mean_D, zero=False)
        return cls(torch.zeros_like(mean_D), zero=True)

    def subtract(self, rows_ND: Tensor, room_ND: Tensor) -> Tensor:
        return _widened(rows_ND, room_ND) if self.zero else torch.sub(rows_ND, self.point_D, out=room_ND)


def _widened(rows_ND: Tensor, room_ND: Tensor) -> Tensor:
    """The rows in the dtype of the room."""
    return rows_ND if rows_ND.dtype == room_ND.dtype else room_ND.copy_(rows_ND)


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
        near: tuple[_Origin, Tensor, Tensor] | None = None
        for part, scale_N, rows_ND, room_ND in self._wide_chunks():
            if near is None:
                origin = _Origin.near(rows_ND[: len(room_ND)].to(room_ND.dtype))
                near = origin, directions_UD @ origin.point_D.double(), directions_UD.to(room_ND.dtype)
            origin, offsets_U, to_UD = near
            dots_N = room_ND.new_empty(len(rows_ND))
            for block in row_blocks(*rows_ND.shape):
                from_origin_ND = origin.subtract(rows_ND[block], room_ND[: block.stop - block.start])
                if len(to_UD) == 1:
                    torch.mv(from_origin_ND, to_UD[0], out=dots_N[block])
                else:
                    dots_N[block] = (from_origin_ND * to_UD[units[part][block]]).sum(1)
            products_N[part] = (dots_N.double() + offsets_U[units[part]]) * scale_N
        midpoints_U = (sides.sums(weights_2N * products_N) / masses_2U).sum(0) / 2
        return 2 * (products_N - midpoints_U[units])

    def _directions(self, weights_N: Tensor) -> Tensor:
        """sum weight v of each unit over all ranks, [U, D] float64; within a block in the rows' precision."""
        sides = self.sides
        sums_UD: Tensor | None = None
        for part, scale_N, rows_ND, room_ND in self._wide_chunks():
            if sums_UD is None:
                sums_UD = weights_N.new_zeros(sides.num_units, rows_ND.shape[1])
            folded_N = weights_N[part] * scale_N
            for block in row_blocks(*rows_ND.shape):
                block_ND = rows_ND[block]
                wide_ND = _widened(block_ND, room_ND[: len(block_ND)])
                one_hot_Un = 1 if sides.num_units == 1 else sides.one_hot_NU(part)[block].T
                sums_UD += (folded_N[block] * one_hot_Un).to(wide_ND.dtype) @ wide_ND
            lost_N = folded_N - folded_N.to(room_ND.dtype)
            lost_U = lost_N.sum()[None] if sides.num_units == 1 else lost_N @ sides.one_hot_NU(part)
            sums_UD += lost_U[:, None] * rows_ND[0]
        if self._width is None:  # a rank without tokens learns it from the others
            width = 0 if sums_UD is None else sums_UD.shape[1]
            widths, ranks = sides.all_sum(weights_N.new_tensor([width, width > 0])).tolist()
            self._width = round(widths / max(1.0, ranks))
        return sides.all_sum(weights_N.new_zeros(sides.num_units, self._width) if sums_UD is None else sums_UD)

    def _written_out(self) -> Iterator[Tensor]:
        for _, scale_N, rows_ND, room_ND in self._wide_chunks():
            for block in row_blocks(*rows_ND.shape):
                yield scale_N[block, None].to(room_ND.dtype) * rows_ND[block]

    def _wide_chunks(self) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Tokens, their scales in float64, their rows, and room for a block of rows in float32 at least; no empty chunks.

        The room is the same memory each time: fresh memory would cost more than the arithmetic.
        """
        start, tokens = 0, len(self.sides.advantages_N)
        room_ND: Tensor | None = None
        for scale_N, rows_ND in self._chunks():
            check_rank("a chunk of rows", rows_ND, 2)
            if len(scale_N) != len(rows_ND) or start + len(rows_ND) > tokens:
                raise ValueError(f"{len(scale_N)} scales and {len(rows_ND)} rows after {start} of {tokens} tokens")
            if len(rows_ND) == 0:
                continue
            most = row_blocks(*rows_ND.shape)[0].stop
            if room_ND is None or len(room_ND) < most:
                dtype = torch.promote_types(torch.promote_types(scale_N.dtype, rows_ND.dtype), torch.float32)
                room_ND = rows_ND.new_empty((most, rows_ND.shape[1]), dtype=dtype)
            yield slice(start, start + len(rows_ND)), scale_N.double(), rows_ND, room_ND
            start += len(rows_ND)
        if start != tokens:
            raise ValueError(f"there are {start} rows, but {tokens} advantages")
