"""The gradient of the token's own row of the LM head: the published proxy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from delta_lightning.credit.proxies.proxy import GradientProxy
from delta_lightning.credit.proxies.tokens import TokenStream
from delta_lightning.functional.feature_geometry import Geometry
from delta_lightning.functional.scaled_geometry import ScaledGeometry, ScaledRows
from delta_lightning.functional.sides import Sides
from delta_lightning.types import Need


@dataclass(frozen=True, kw_only=True)
class OutputRow(GradientProxy):
    """v = (1 - p) h, with h the LM head's input that predicted the token (arXiv 2605.21467, appendix F).

    It is the gradient of log p(y) with respect to row y of the LM head. All rows are laid on top of each other: tokens with
    different y are compared as if they had one row, which `HeadGradient` does not do. With an adapter the head is
    frozen, and v is the gradient that it would have. It has no fields.

    Cost: 2 readings of the hidden states per round of centroids and margins, no product with the LM head, no state.
    """

    def bind(self, tokens: TokenStream, sides: Sides) -> Geometry:
        """1 - p and h as they are: their product is not built."""

        def rows() -> Iterator[ScaledRows]:
            for _, logprobs_N, _, hidden_ND in tokens():
                # 1 - exp(logp) without cancellation where p is close to 1.
                yield ScaledRows(-torch.expm1(logprobs_N), hidden_ND)

        return ScaledGeometry(rows, sides)

    def needs(self) -> frozenset[Need]:
        """Hidden states."""
        return frozenset({Need.HIDDEN})
