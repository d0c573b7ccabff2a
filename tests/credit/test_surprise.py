from __future__ import annotations

import pytest
import torch

from delta_lightning.credit import Surprise
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import golden, mixed
from support.reference_credit import range_mapped
from support.token_rows import advantages_of_rows, close, rows_of


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("part", [Surprise(), Surprise(low=0.0, high=2.0)])
def test_equals_the_reference_and_obeys_the_laws(part: Surprise, dtype: torch.dtype, tolerance: float) -> None:
    check_credit(part)
    world = mixed(dtype)
    gates = [[1 - p for p in row] for row in rows_of(world.logprobs_BT.double().exp(), world)]
    scale_BT = part.credit(View(world)).scale_BT
    assert scale_BT.dtype == dtype
    close(rows_of(scale_BT, world), range_mapped(gates, advantages_of_rows(world), part.low, part.high), tolerance)


def test_golden_probabilities() -> None:
    """p of the worked example: gates .5 .1 .8 | .1 .6 | .7 .1 .4 | 0 since A = 0; sum of lambda 9 * .8 + .4 * 3.3 = 8.52."""
    scale = rows_of(Surprise().credit(View(golden())).scale_BT, golden())
    close(scale, [[v * 9 / 8.52 for v in row] for row in ([1.0, 0.84, 1.12], [0.84, 1.04], [1.08, 0.84, 0.96], [0.8])], 1e-9)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"credit.Surprise.low: wanted at least 0, got -1"):
        Surprise(low=-1)
