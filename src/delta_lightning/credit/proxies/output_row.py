"""The gradient of the token's own row of the LM head: the published proxy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.credit.proxies.proxy import GradientProxy
from delta_lightning.credit.proxies.tokens import TokenStream
from delta_lightning.functional.feature_geometry import FeatureGeometry, Geometry
from delta_lightning.functional.sides import Sides, row_blocks
from delta_lightning.types import Need


@dataclass(frozen=True, kw_only=True)
class OutputRow(GradientProxy):
    """v = (1 - p) h, with h the LM head's input that predicted the token (arXiv 2605.21467, appendix F).

    It is the gradient of log p(y) with respect to row y of the LM head. All rows are laid on top of each other: tokens with
    different y are compared as if they had one row, which `HeadGradient` does not do. It has no fields.

    Cost: 2 readings of the hidden states per round of centroids and margins, no product with the LM head, no state.
    """

    def bind(self, tokens: TokenStream, sides: Sides) -> Geometry:
        """Features computed anew at each pass, block by block."""

        def features() -> Iterator[Tensor]:
            for _, logprobs_N, _, hidden_ND in tokens():
                # 1 - exp(logp) without cancellation where p is close to 1.
                weights_N = -torch.expm1(logprobs_N)
                for part in row_blocks(*hidden_ND.shape):
                    yield weights_N[part, None] * hidden_ND[part].to(logprobs_N.dtype)

        return FeatureGeometry(features, sides)

    def needs(self) -> frozenset[Need]:
        """Hidden states."""
        return frozenset({Need.HIDDEN})
