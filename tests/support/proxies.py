"""Worlds whose log-probabilities are those of their head, and DelTA's coefficients on them by the NumPy references."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from delta_lightning.credit import Delta
from delta_lightning.models.scorer import WholeHead
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import VOCABULARY, WIDTH, Scored, mixed
from support import reference_delta

Array = NDArray[np.float64]
Vector = Callable[[Array, int, Array, float], Array]
TEMPERATURE = 0.7


@dataclass
class WarmView(View):
    """A view with a given head at a given temperature."""

    weight_VD: Tensor | None = None
    temperature: float = TEMPERATURE

    def head(self) -> AbstractContextManager[WholeHead]:  # type: ignore[override]
        assert self.weight_VD is not None
        return nullcontext(WholeHead(weight_VD=self.weight_VD, temperature=self.temperature))


def head_weight(dtype: torch.dtype = torch.float64, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64).to(dtype)


def rescored(world: Scored, weight_VD: Tensor, temperature: float = TEMPERATURE) -> Scored:
    """With the log-probabilities that the head gives."""
    logits_BTV = world.hidden_BTD @ weight_VD.T / temperature
    logprobs_BTV = torch.log_softmax(logits_BTV, -1)
    logprobs_BT = logprobs_BTV.gather(-1, world.batch.token_ids_BT[..., None])[..., 0]
    return replace(world, logprobs_BT=logprobs_BT * world.batch.loss_mask_BT)


def warm(
    dtype: torch.dtype = torch.float64, *, seed: int = 1, temperature: float = TEMPERATURE, weight_VD: Tensor | None = None
) -> WarmView:
    weight_VD = head_weight(dtype) if weight_VD is None else weight_VD
    return WarmView(rescored(mixed(dtype, seed=seed), weight_VD, temperature), weight_VD=weight_VD, temperature=temperature)


def vectors(view: WarmView, vector: Vector) -> list[Array]:
    """Each trained token's vector, in order."""
    assert view.weight_VD is not None
    world, head = view.world, view.weight_VD.double().numpy()
    return [
        vector(world.hidden_BTD[row, t].double().numpy(), int(world.batch.token_ids_BT[row, t]), head, view.temperature)
        for row, t in world.batch.loss_mask_BT.nonzero().tolist()
    ]


def reference_scale(view: WarmView, vector: Vector, units_B: list[int] | None = None, **options: object) -> Tensor:
    """[B, T] by the reference; `units_B` is the unit of each row."""
    world = view.world
    mask_BT = world.batch.loss_mask_BT
    rows = [row for row, _ in mask_BT.nonzero().tolist()]
    advantages = [float(world.advantages[row]) for row in rows]
    units = [0 if units_B is None else units_B[row] for row in rows]
    scale_BT = torch.zeros(mask_BT.shape, dtype=torch.float64)
    scale_BT[mask_BT] = torch.from_numpy(reference_delta.in_units(vectors(view, vector), advantages, units, **options))
    return scale_BT


def close_to_reference(part: Delta, vector: Vector, dtype: torch.dtype, tolerance: float, **options: object) -> None:
    """The part on a few worlds, against the reference with the part's numbers."""
    numbers = {"refinements": part.refinements, "low": part.low, "high": part.high, **options}
    for seed in range(3):
        view = warm(dtype, seed=seed)
        units = view.world.batch.group_ids_B.tolist() if part.scope == "group" else None
        got = part.credit(view).scale_BT
        assert got.dtype == dtype
        wanted = reference_scale(view, vector, units, **numbers)
        torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance)
