"""Margins and distances in the space of exact LM-head gradients, v = (e_y - p) outer h, of which none is ever built.

v is a matrix [V, D]; centroids are such matrices too. They are built in blocks of the vocabulary, outermost: with the
logsumexp of each token known, a block of u = e_y - p needs only a block of logits. For each block

    first pass    C_side = sum_side w u_block outer h                              then the sum over ranks
    second pass   <v, X>_block = u_block . (X_block h), X = mu_pos - mu_neg (margins) or the token's own centroid (distances)

so that two [V_block, D] matrices are all that is held, at any V, and the result is exact. Each token is on one side, so each
of the four products (logits and C; logits and X h) costs one product with the whole LM head for the tokens of both sides,
2 N V D FLOPs. <v, v> = |u|^2 |h|^2 comes with the second pass. At temperature T the gradient has a factor 1/T, left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from delta_lightning.functional.feature_geometry import MASS_FLOOR
from delta_lightning.functional.logprobs import chunk_tokens
from delta_lightning.functional.sides import Sides


class HeadTokens(NamedTuple):
    """Consecutive tokens: which of the N, the LM head's inputs, and the token ids that they predicted."""

    part: slice
    hidden_ND: Tensor
    targets_N: Tensor


class BlockHead(Protocol):
    """The LM head (`interfaces.Head`)."""

    @property
    def weight_VD(self) -> Tensor:
        """The head's weight."""
        ...

    def logits(self, hidden_ND: Tensor, vocabulary: slice = slice(None)) -> Tensor:
        """[N, D] -> [N, V] at the sampling temperature, or some columns of it."""
        ...


Tokens = Callable[[], Iterable[HeadTokens]]


class HeadGeometry:
    """`Geometry` of the exact LM-head gradients.

    Args:
        tokens: returns an iterable over this rank's tokens in order; called again for each pass; may yield nothing.
        head: opens the LM head; entered once per answer, by every rank.
        sides: which tokens are compared.
        block_bytes: of the float64 centroid sums of one vocabulary block, both sides and all units together.
        logits_bytes: of the float32 logits held at a time.
    """

    def __init__(
        self,
        tokens: Tokens,
        head: Callable[[], AbstractContextManager[BlockHead]],
        sides: Sides,
        *,
        block_bytes: int = 1 << 29,
        logits_bytes: int = 1 << 26,
    ) -> None:
        self._tokens, self._head, self._sides = tokens, head, sides
        self._block_bytes, self._logits_bytes = block_bytes, logits_bytes
        self._normalisers: tuple[Tensor, Tensor] | None = None

    @property
    def sides(self) -> Sides:
        """Which tokens are compared."""
        return self._sides

    def margins(self, weights_2N: Tensor) -> Tensor:
        """See `Geometry`: 2 (<v, d> - <c, d>)."""
        inner_N = torch.zeros_like(self.sides.advantages_N)
        offsets_U = inner_N.new_zeros(self.sides.num_units)
        with self._head() as head:
            for vocabulary, means_2UVD in self._centroids(head, weights_2N):
                directions_UVD = means_2UVD[0] - means_2UVD[1]
                offsets_U += (means_2UVD.mean(0) * directions_UVD).sum((1, 2))
                self._project(head, vocabulary, directions_UVD.expand_as(means_2UVD), inner_N)
        return 2 * (inner_N - offsets_U[self.sides.unit_of_N])

    def own_distances(self, weights_2N: Tensor) -> Tensor:
        """See `Geometry`: |v|^2 - 2 <v, mu> + |mu|^2, floored at 0."""
        inner_N = torch.zeros_like(self.sides.advantages_N)
        squares_N, lengths_2U = torch.zeros_like(inner_N), inner_N.new_zeros(2, self.sides.num_units)
        with self._head() as head:
            for vocabulary, means_2UVD in self._centroids(head, weights_2N):
                lengths_2U += means_2UVD.square().sum((2, 3))
                self._project(head, vocabulary, means_2UVD, inner_N, squares_N)
        return (squares_N - 2 * inner_N + self.sides.own(lengths_2U)).clamp(min=0)

    def _centroids(self, head: BlockHead, weights_2N: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The centroids block by block, [2, U, V_block, D] float64. The first pass; one collective a block, and one before."""
        masses_2U = self.sides.sums(weights_2N).clamp(min=MASS_FLOOR)
        size, width = head.weight_VD.shape
        step = max(1, self._block_bytes // (16 * self.sides.num_units * width))
        for start in range(0, size, step):
            vocabulary = slice(start, min(size, start + step))
            sums_2UVD = weights_2N.new_zeros(2, self.sides.num_units, vocabulary.stop - start, width)
            for errors_NV, hidden_ND, part in self._errors(head, vocabulary):
                for side, unit, which in self._cells(part):
                    weights_N = weights_2N[side, part][which].to(errors_NV.dtype)
                    product_VD = (weights_N[:, None] * errors_NV[which]).T @ hidden_ND[which]
                    sums_2UVD[side, unit] += product_VD
            yield vocabulary, self.sides.all_sum(sums_2UVD).div_(masses_2U[:, :, None, None])

    def _project(
        self, head: BlockHead, vocabulary: slice, onto_2UVD: Tensor, inner_N: Tensor, squares_N: Tensor | None = None
    ) -> None:
        """Adds a block's <v, onto of the token's cell> to `inner_N`, and of <v, v> to `squares_N`. The second pass."""
        for errors_NV, hidden_ND, part in self._errors(head, vocabulary):
            if squares_N is not None:
                squares_N[part] += errors_NV.double().square().sum(1) * hidden_ND.double().square().sum(1)
            for side, unit, which in self._cells(part):
                images_NV = hidden_ND[which] @ onto_2UVD[side, unit].to(hidden_ND.dtype).T
                inner_N[part.start + which] += (errors_NV[which].double() * images_NV.double()).sum(1)

    def _errors(self, head: BlockHead, vocabulary: slice) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """u = e_y - p in a block of the vocabulary, [n, V_block], and the hidden states, in float32 at least."""
        logsumexp_N, others_N = self._normaliser(head)
        first = vocabulary.start
        for part, hidden_ND, targets_N in self._chunks(head, vocabulary.stop - first):
            wide = torch.promote_types(hidden_ND.dtype, torch.float32)
            scaled_NV = head.logits(hidden_ND, vocabulary).to(wide) - logsumexp_N[part, None].to(wide)
            errors_NV = -scaled_NV.exp()
            rows = ((targets_N >= first) & (targets_N < vocabulary.stop)).nonzero()[:, 0]
            errors_NV[rows, targets_N[rows] - first] = others_N[part][rows].to(wide)
            yield errors_NV, hidden_ND.to(wide), part

    def _normaliser(self, head: BlockHead) -> tuple[Tensor, Tensor]:
        """logsumexp of each token's logits, and 1 - p_y as the sum of the other p, both [N] float64: one product, once.

        Not from log-probabilities, since the hidden states may have been rounded by a cache after those were taken, and p must
        add up to 1. Not by 1 - exp(.) either: where p_y is close to 1, that is nothing but the rounding of the logsumexp.
        """
        if self._normalisers is None:
            logsumexp_N, others_N = torch.zeros_like(self.sides.advantages_N), torch.zeros_like(self.sides.advantages_N)
            for part, hidden_ND, targets_N in self._chunks(head, head.weight_VD.shape[0]):
                logits_NV = head.logits(hidden_ND)
                logsumexp_N1 = logits_NV.logsumexp(1, keepdim=True)
                p_NV = (logits_NV - logsumexp_N1).exp().scatter(1, targets_N[:, None], 0.0)
                logsumexp_N[part], others_N[part] = logsumexp_N1[:, 0].double(), p_NV.sum(1).double()
            self._normalisers = logsumexp_N, others_N
        return self._normalisers

    def _chunks(self, head: BlockHead, vocabulary: int) -> Iterator[HeadTokens]:
        """The tokens in chunks whose logits over `vocabulary` fit the budget; a cache may have rounded them, not the head."""
        wide = head.weight_VD.dtype
        step = chunk_tokens(vocabulary, self._logits_bytes)
        for part, hidden_ND, targets_N in self._tokens():
            for start in range(0, len(targets_N), step):
                rows = slice(start, min(len(targets_N), start + step))
                states_ND = hidden_ND[rows].to(torch.promote_types(hidden_ND.dtype, wide))
                yield HeadTokens(slice(part.start + rows.start, part.start + rows.stop), states_ND, targets_N[rows])

    def _cells(self, part: slice) -> Iterator[tuple[int, int, Tensor]]:
        """Side, unit and indices within `part` of the tokens of each cell that occurs there; A = 0 is in none."""
        advantages_N, units_N = self.sides.advantages_N[part], self.sides.unit_of_N[part]
        cells_N = torch.where(advantages_N == 0, -1, 2 * units_N + (advantages_N < 0))
        for cell in torch.unique(cells_N).tolist():
            if cell >= 0:
                yield cell % 2, cell // 2, (cells_N == cell).nonzero()[:, 0]
