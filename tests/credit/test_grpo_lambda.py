from __future__ import annotations

from typing import Literal

import pytest
import torch

from delta_lightning.credit import GRPOLambda
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import make_batch, mixed, scored
from support.reference_credit import mean_one, trace
from support.token_rows import close, rows_of


@pytest.mark.parametrize("normaliser", ["sequence", "batch", "none"])
@pytest.mark.parametrize("kind", ["recent", "both"])
@pytest.mark.parametrize("factor", [0.3, 0.99, 1.0])
def test_equals_the_reference_and_obeys_the_laws(
    kind: Literal["recent", "both"], factor: float, normaliser: Literal["sequence", "batch", "none"]
) -> None:
    part, world = GRPOLambda(trace=kind, decay=factor, normaliser=normaliser), mixed()
    check_credit(part)
    wanted = mean_one([trace(len(row), kind, factor) for row in rows_of(world.logprobs_BT, world)], normaliser)
    close(rows_of(part.credit(View(world)).scale_BT, world), wanted, 1e-6)


@pytest.mark.parametrize(("kind", "wanted"), [("recent", [4.0951, 3.439, 2.71, 1.9, 1.0]), ("both", [5, 3.7, 2.71, 1.9, 1])])
def test_golden(kind: Literal["recent", "both"], wanted: list[float]) -> None:
    world = scored(make_batch([5], rewards=[1.0], groups=[0]), [1.0])
    scale_BT = GRPOLambda(trace=kind, decay=0.9, normaliser="none").credit(View(world)).scale_BT
    close(rows_of(scale_BT, world), [wanted], 1e-6)


def test_the_gradient_of_the_traced_log_ratio_at_theta_old() -> None:
    """d/d log p_j of sum_t sum_l decay ** l log r_(t-l) is c_j."""
    log_ratio_T = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    traced = sum(0.8**lag * log_ratio_T[t - lag] for t in range(7) for lag in range(t + 1))
    (wanted,) = torch.autograd.grad(traced, log_ratio_T)
    world = scored(make_batch([7], rewards=[1.0], groups=[0]), [1.0])
    scale_BT = GRPOLambda(decay=0.8, normaliser="none").credit(View(world)).scale_BT
    close(rows_of(scale_BT, world), [wanted.tolist()], 1e-6)


@pytest.mark.parametrize("options", [{"trace": "old"}, {"decay": 0}, {"decay": 1.1}, {"normaliser": "token"}])
def test_refusals(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"credit.GRPOLambda"):
        GRPOLambda(**options)  # type: ignore[arg-type]
