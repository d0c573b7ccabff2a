from __future__ import annotations

import pytest
import torch

from delta_lightning.credit import Delta, Random
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import degenerate, mixed
from support.reference_credit import range_mapped
from support.token_rows import advantages_of_rows, close, rows_of


@pytest.mark.parametrize("part", [Random(), Random(low=0.0, high=1.0, draw=3)])
def test_equals_the_reference_and_obeys_the_laws(part: Random) -> None:
    check_credit(part)
    view = View(mixed())
    gates = rows_of(view.uniform(f"credit.Random {part.draw}"), view.world)
    close(
        rows_of(part.credit(view).scale_BT, view.world),
        range_mapped(gates, advantages_of_rows(view.world), part.low, part.high), 1e-6,
    )  # fmt: skip


def test_its_range_and_its_tokens_without_advantage_are_those_of_delta() -> None:
    view = View(mixed())
    zero_BT = (view.world.advantages == 0)[:, None] & view.batch.loss_mask_BT
    scale_BT = Random().credit(view).scale_BT
    assert scale_BT[view.batch.loss_mask_BT].mean() == pytest.approx(1, abs=1e-6)
    low = scale_BT[zero_BT].unique()
    assert len(low) == 1 and float(scale_BT[view.batch.loss_mask_BT].max()) < 1.5 * float(low)
    assert float(Delta().credit(view).scale_BT[zero_BT].max()) == pytest.approx(0.8 / 1.0, abs=0.1)


def test_draws() -> None:
    view = View(mixed())
    assert torch.equal(Random().credit(view).scale_BT, Random().credit(view).scale_BT)
    assert not torch.equal(Random().credit(view).scale_BT, Random(draw=1).credit(view).scale_BT)


def test_no_advantage_is_uniform_and_refusals() -> None:
    scale_BT = Random().credit(View(degenerate()["no advantage"])).scale_BT
    assert scale_BT[scale_BT != 0].unique().tolist() == pytest.approx([1.0])
    assert not Random(low=1, high=1).token_level()
    with pytest.raises(ConfigError, match=r"credit.Random.low: wanted at most credit.Random.high \(0.5\)"):
        Random(high=0.5)
