from __future__ import annotations

import pytest
import torch

from delta_lightning.functional.checks import check_rank, check_same_shape


def test_rank() -> None:
    check_rank("x", torch.zeros(2, 3), 2)
    with pytest.raises(ValueError, match=r"x: wanted 1 dimensions, got shape \(2, 3\)"):
        check_rank("x", torch.zeros(2, 3), 1)


def test_same_shape() -> None:
    check_same_shape(a=torch.zeros(2), b=torch.ones(2))
    with pytest.raises(ValueError, match=r"wanted one shape, got a \(2,\), b \(2, 1\)"):
        check_same_shape(a=torch.zeros(2), b=torch.ones(2, 1))
