from __future__ import annotations

import torch

from delta_lightning.functional.reduction import token_mean_weights

MASK = torch.tensor([[True, False, True], [False, False, False]])


def test_given_denominator() -> None:
    assert token_mean_weights(MASK, tokens=8).tolist() == [[0.125, 0, 0.125], [0, 0, 0]]


def test_no_token_gives_zero() -> None:
    assert token_mean_weights(MASK & False, tokens=0).tolist() == [[0] * 3] * 2


def test_dtype() -> None:
    assert token_mean_weights(MASK, tokens=3, dtype=torch.float64)[0, 0].item() == 1 / 3
