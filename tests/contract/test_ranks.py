"""1, 2 and 4 gloo processes: the same advantages, coefficients, loss and gradients."""

from __future__ import annotations

import pytest
import torch

from delta_lightning.testing.laws import TOLERANCE
from support.policy import SETTINGS, step, work_of_rank
from support.world import run_ranks

GRADIENT = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.mark.parametrize("size", [2, 4])
def test_any_number_of_ranks(size: int) -> None:
    """One process group for all settings; with the groups of the toy rollout spread over the ranks."""
    ranks = run_ranks(size, work_of_rank)
    for name, (dtype, credit, filtered) in SETTINGS.items():
        wanted = step(dtype, credit=credit, filtered=filtered)
        order = torch.cat([rank[name]["rows"] for rank in ranks]).argsort()
        for field in ("advantages", "coefficients"):
            joined = torch.cat([rank[name][field] for rank in ranks])[order]
            torch.testing.assert_close(joined, wanted[field], rtol=0, atol=TOLERANCE[dtype], msg=f"{name}: {field}")
        for rank in ranks:
            torch.testing.assert_close(rank[name]["loss"], wanted["loss"], rtol=0, atol=TOLERANCE[dtype])
            error = (rank[name]["gradients"] - wanted["gradients"]).abs().max() / wanted["gradients"].abs().max()
            assert float(error) <= GRADIENT[dtype], f"{name}: gradients differ by {float(error):.3g}"
