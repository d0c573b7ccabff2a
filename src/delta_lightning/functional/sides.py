"""The two sides of a comparison between tokens, and statistics of each side, summed over ranks.

Tokens of responses with A > 0 are one side, those with A < 0 the other; tokens with A = 0 are on neither. Sides are compared
within a *unit*: the whole rollout step, or one prompt's group. In shapes, 2 counts sides (row 0 is the positive one) and U
units. Scalars are float64.

Sums over units are products with one-hot matrices, block by block: unlike atomic additions they give the same bits each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_rank, check_same_shape

AllSum = Callable[[Tensor], Tensor]

VARIANCE_FLOOR = 1e-8
BLOCK_ELEMENTS = 1 << 20  # of a temporary [n, D]: 4 MiB in float32, which stays in a CPU's cache


def identity(value: Tensor) -> Tensor:
    """The sum over one rank."""
    return value


@dataclass(frozen=True)
class Sides:
    """Which side and which unit each of this rank's N tokens belongs to.

    Attributes:
        advantages_N: the advantage of each token's response.
        units_N: int64, the unit of each token, below `num_units`; None puts every token into the one unit.
        num_units: U, the same on every rank. all_sum: sum over the ranks that share units.
    """

    advantages_N: Tensor
    units_N: Tensor | None = None
    num_units: int = 1
    all_sum: AllSum = identity

    def __post_init__(self) -> None:
        check_rank("advantages_N", self.advantages_N, 1)
        object.__setattr__(self, "advantages_N", self.advantages_N.double())
        if self.units_N is None:
            object.__setattr__(self, "units_N", torch.zeros_like(self.advantages_N, dtype=torch.int64))
        check_same_shape(advantages_N=self.advantages_N, units_N=self.unit_of_N)

    @property
    def unit_of_N(self) -> Tensor:
        """The unit of each token, int64."""
        assert self.units_N is not None
        return self.units_N

    @property
    def members_2N(self) -> Tensor:
        """1 where the token is on that side, else 0; float64."""
        return torch.stack([self.advantages_N > 0, self.advantages_N < 0]).double()

    @property
    def weights_2N(self) -> Tensor:
        """|A| on the token's own side, 0 on the other; float64."""
        return torch.stack([self.advantages_N.clamp(min=0), (-self.advantages_N).clamp(min=0)])

    def one_hot_NU(self, part: slice) -> Tensor:
        """1 in the column of each token's unit, for the tokens `part`; float64."""
        units_U = torch.arange(self.num_units, device=self.unit_of_N.device)
        return (self.unit_of_N[part, None] == units_U).double()

    def cell_weights(self, weights_2N: Tensor, part: slice) -> Tensor:
        """The weights of the tokens `part` in rows of one side and one unit each, [2 U, n]."""
        if self.num_units == 1:  # the usual case: nothing to sort
            return weights_2N[:, part]
        return (weights_2N[:, None, part] * self.one_hot_NU(part).T).reshape(2 * self.num_units, -1)

    def local_sums(self, values_RN: Tensor) -> Tensor:
        """Sums of each row over each unit on this rank, [R, U]."""
        if self.num_units == 1:
            return values_RN.sum(1, keepdim=True)
        totals_RU = values_RN.new_zeros(len(values_RN), self.num_units)
        for part in row_blocks(values_RN.shape[1], self.num_units):
            totals_RU += values_RN[:, part] @ self.one_hot_NU(part)
        return totals_RU

    def sums(self, values_RN: Tensor) -> Tensor:
        """Sums of each row over each unit, all ranks, [R, U]; one collective."""
        return self.all_sum(self.local_sums(values_RN))

    def own(self, values_2U: Tensor) -> Tensor:
        """The value of each token's own side and unit, [N]; of the positive side where A = 0."""
        return values_2U[(self.advantages_N < 0).long(), self.unit_of_N]

    def two_sided_U(self) -> Tensor:
        """Bool: units with tokens of weight on both sides; one collective."""
        return (self.sums(self.weights_2N) > 0).all(0)


def group_units(group_ids_N: Tensor, *, all_sum: AllSum = identity) -> tuple[Tensor, int]:
    """Numbers the groups that have tokens on any rank 0 .. U - 1 in the order of their ids; two collectives.

    Args:
        group_ids_N: int64, not negative, small enough for a vector of as many elements as the largest id.

    Returns:
        The number of each token's group, [N], and U, at least 1.
    """
    highest = int(group_ids_N.max()) if len(group_ids_N) else 0
    lengths = group_ids_N.new_zeros(64, dtype=torch.float64)
    lengths[highest.bit_length()] = 1  # a maximum over ranks by a sum: of bit lengths
    ids = 1 << int(all_sum(lengths).nonzero().max())
    present = torch.zeros(ids, dtype=torch.float64, device=group_ids_N.device)
    present[group_ids_N] = 1
    seen = all_sum(present) > 0
    numbers = seen.long().cumsum(0) - 1
    return numbers[group_ids_N], max(1, int(seen.sum()))


def side_mean(values_N: Tensor, sides: Sides) -> Tensor:
    """Mean over the tokens of each side and unit, not weighted by |A|, [2, U]; 0 for an empty side; one collective."""
    members_2N = sides.members_2N
    counts_2U, totals_2U = sides.sums(torch.cat([members_2N, members_2N * values_N])).chunk(2)
    return totals_2U / counts_2U.clamp(min=1)


def side_std(values_N: Tensor, sides: Sides) -> Tensor:
    """Population standard deviation over the tokens of each side and unit, [2, U]; two collectives.

    Not weighted by |A|; the variance is floored at 1e-8. Two passes, centred first: E[m^2] - E[m]^2 would cancel.
    """
    centred_N = values_N - sides.own(side_mean(values_N, sides))
    return side_mean(centred_N.square(), sides).clamp(min=VARIANCE_FLOOR).sqrt()


def row_blocks(rows: int, width: int) -> list[slice]:
    """Slices of `rows` whose [n, width] temporaries stay small."""
    step = max(1, BLOCK_ELEMENTS // max(1, width))
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]
