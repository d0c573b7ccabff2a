"""A stranger's proxy, as the documentation shows it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.credit import Delta
from delta_lightning.credit.proxies import GradientProxy
from delta_lightning.credit.proxies.tokens import TokenStream
from delta_lightning.functional.delta import delta_coefficients
from delta_lightning.functional.feature_geometry import FeatureGeometry, Geometry
from delta_lightning.functional.sides import Sides
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import mixed
from delta_lightning.types import Need


@dataclass(frozen=True, kw_only=True)
class State(GradientProxy):
    """v = h, without the factor 1 - p."""

    def bind(self, tokens: TokenStream, sides: Sides) -> Geometry:
        return FeatureGeometry(lambda: (scored.hidden_ND for scored in tokens()), sides)

    def needs(self) -> frozenset[Need]:
        return frozenset({Need.HIDDEN})


def test_a_strangers_proxy() -> None:
    part, world = Delta(proxy=State()), mixed()
    mask_BT = world.batch.loss_mask_BT
    advantages = world.advantages[:, None].expand(mask_BT.shape)[mask_BT]
    got = part.credit(View(world)).scale_BT[mask_BT]
    torch.testing.assert_close(got, delta_coefficients(world.hidden_BTD[mask_BT], advantages), rtol=0, atol=1e-12)
    assert part.needs() == {Need.HIDDEN}
    check_credit(part)
