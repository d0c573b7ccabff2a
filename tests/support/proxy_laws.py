"""Changes of the model that leave every proxy's coefficients as they are."""

from __future__ import annotations

from dataclasses import replace

import torch

from delta_lightning.credit import Delta
from delta_lightning.credit.proxies import GradientProxy
from support.proxies import WarmView, head_weight, rescored, warm


def same(part: Delta, got: WarmView, wanted: WarmView) -> None:
    torch.testing.assert_close(part.credit(got).scale_BT, part.credit(wanted).scale_BT, rtol=0, atol=1e-9)


def check_invariances(proxy: GradientProxy) -> None:
    """Rotations of the hidden space, a scale that moves from states to head, one vector added to every row of the head,
    names of tokens, the sign and scale of advantages."""
    part, view = Delta(proxy=proxy), warm()
    world, weight_VD = view.world, head_weight()
    generator = torch.Generator().manual_seed(3)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    same(part, warm_like(world.hidden_BTD @ rotation, weight_VD @ rotation, view), view)
    same(part, warm_like(world.hidden_BTD * 3, weight_VD / 3, view), view)
    same(part, warm_like(world.hidden_BTD, weight_VD + torch.randn(5, generator=generator, dtype=torch.float64), view), view)
    order = torch.randperm(len(weight_VD), generator=generator)
    renamed = replace(world, batch=replace(world.batch, token_ids_BT=order.argsort()[world.batch.token_ids_BT]))
    same(part, WarmView(renamed, weight_VD=weight_VD[order]), view)
    same(part, WarmView(world.with_advantages(-2 * world.advantages), weight_VD=weight_VD), view)


def warm_like(hidden_BTD: torch.Tensor, weight_VD: torch.Tensor, view: WarmView) -> WarmView:
    return WarmView(rescored(replace(view.world, hidden_BTD=hidden_BTD), weight_VD), weight_VD=weight_VD)


def check_bfloat16_states(proxy: GradientProxy) -> None:
    """Hidden states rounded by the cache: float32 coefficients, near those of exact states."""
    view = warm(torch.float32)
    rounded = replace(view, world=replace(view.world, hidden_BTD=view.world.hidden_BTD.bfloat16()))
    part = Delta(proxy=proxy)
    got, wanted = part.credit(rounded).scale_BT, part.credit(view).scale_BT
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=0, atol=0.02)
