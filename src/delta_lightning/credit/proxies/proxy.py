"""The seam between DelTA and the vectors that stand for tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod

from delta_lightning.credit.proxies.tokens import TokenStream
from delta_lightning.functional.feature_geometry import Geometry
from delta_lightning.functional.sides import Sides
from delta_lightning.types import Need


class GradientProxy(ABC):
    """What stands for the gradient of a token's log-probability.

    Laws: those of `functional.feature_geometry.Geometry`. Proxies need no seed and draw nothing at random.
    """

    @abstractmethod
    def bind(self, tokens: TokenStream, sides: Sides) -> Geometry:
        """The geometry of the tokens of one rollout step; it may keep what it computed at the first use."""

    def needs(self) -> frozenset[Need]:
        """What the scoring pass must compute."""
        return frozenset({Need.HIDDEN, Need.HEAD})
