from __future__ import annotations

import pytest
import torch

from delta_lightning.losses import SequenceMean, TokenMean
from delta_lightning.testing.worlds import make_batch, mixed, scored, totals_of


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_mean_of_means(dtype: torch.dtype) -> None:
    world = mixed(dtype)
    values_BT = torch.randn(world.logprobs_BT.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = []
    for row, mask in enumerate(world.batch.loss_mask_BT.tolist()):
        trained = [float(values_BT[row, t]) for t, inside in enumerate(mask) if inside]
        if trained:
            means.append(sum(trained) / len(trained))
    weights_BT = SequenceMean().weights(world.experience(), totals_of(world))
    assert weights_BT.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert float((weights_BT.double() * values_BT).sum()) == pytest.approx(sum(means) / len(means), abs=tolerance)
    assert len(means) == 10  # rows without a trained token are in no count


def test_a_row_counts_the_same_at_any_length() -> None:
    world = scored(make_batch([1, 9], rewards=[1.0, 0.0], groups=[0, 0]), [1.0, -1.0])
    weights_BT = SequenceMean().weights(world.experience(), totals_of(world))
    assert weights_BT.sum(1).tolist() == pytest.approx([0.5, 0.5])
    assert TokenMean().weights(world.experience(), totals_of(world)).sum(1).tolist() == pytest.approx([0.1, 0.9])


def test_no_token_at_all_gives_zero() -> None:
    world = mixed()
    nothing = world.without(torch.ones_like(world.batch.valid_B))
    assert not bool(SequenceMean().weights(nothing.experience(), totals_of(nothing)).any())
