"""The gradient with respect to the LM head's input, over the whole vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.credit.proxies.kept import KeptFeatures
from delta_lightning.credit.proxies.proxy import GradientProxy
from delta_lightning.credit.proxies.tokens import TokenStream
from delta_lightning.errors import require
from delta_lightning.functional.feature_geometry import FeatureGeometry, Geometry
from delta_lightning.functional.hidden_gradient import hidden_gradient
from delta_lightning.functional.sides import Sides
from delta_lightning.interfaces import Head


@dataclass(frozen=True, kw_only=True)
class HiddenGradient(GradientProxy):
    """v = W_y - sum_j p_j W_j, the gradient of log p(y) with respect to the LM head's input h.

    The full-vocabulary form of the paper's second proxy (arXiv 2605.21467, appendix F), which sums over the k likeliest tokens
    (`TopKHiddenGradient`). It is what backpropagation sends into the model's body, so it knows y and its competitors, and
    not where in the text the token stands. The factor 1 / temperature is left out: coefficients do not depend on it.

    Cost, once per rollout step and for any number of refinements: 2 products with the LM head (2 N V D FLOPs each), and one
    copy of its weight in float32 where the model is in fewer bits (4 V D bytes). Then as `OutputRow`. State: N D numbers in
    the dtype of the cached hidden states, as many bytes as that cache holds, beside it and outside its budget.

    Args:
        logits_mib: float32 logits held at a time, MiB; at least one token's are.
    """

    logits_mib: int = 64

    def __post_init__(self) -> None:
        require(self.logits_mib > 0, "proxy.logits_mib", wanted="above 0", got=self.logits_mib, remedy="64 is a good value.")

    def bind(self, tokens: TokenStream, sides: Sides) -> Geometry:
        """Features computed at the first pass, then kept."""
        wide: list[Tensor] = []  # the head's weight in the dtype of the logits, cast once

        def from_logits(logits_NV: Tensor, targets_N: Tensor, head: Head) -> Tensor:
            if not wide:
                wide.append(head.weight_VD.to(logits_NV.dtype))
            return hidden_gradient(logits_NV, targets_N, wide[0])

        return FeatureGeometry(KeptFeatures(tokens, from_logits, logits_bytes=self.logits_mib << 20), sides)
