from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.errors import ConfigError
from delta_lightning.shaping import SoftOverlong
from delta_lightning.testing.laws import check_shaping
from delta_lightning.testing.worlds import PROMPT, make_batch
from delta_lightning.types import RolloutBatch, with_mask
from support import reference_corrections as reference

SMALL = SoftOverlong(max_length=6, buffer=4, factor=0.5)


def rewards(part: SoftOverlong, batch: RolloutBatch) -> list[float]:
    return part.rewards(batch).tolist()


def test_laws() -> None:
    check_shaping(SMALL)
    check_shaping(SoftOverlong(max_length=1, buffer=1))


def test_golden() -> None:
    """DAPO's defaults at 16384, 18432 and 20480 tokens."""
    lengths = [1, 16384, 18432, 20480, 20481]
    batch = make_batch(lengths, rewards=[0.0] * 5, groups=[0] * 5)
    assert rewards(SoftOverlong(), batch) == [0, 0, -0.5, -1, -1]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 3), st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_equals_the_reference(max_length: int, buffer: int, factor: float, lengths: list[int]) -> None:
    buffer = min(buffer, max_length)
    batch = make_batch(lengths, rewards=[0.25] * len(lengths), groups=[0] * len(lengths))
    wanted = [0.25 + reference.soft_overlong(length, max_length, buffer, factor) for length in lengths]
    assert rewards(SoftOverlong(max_length=max_length, buffer=buffer, factor=factor), batch) == pytest.approx(wanted, abs=1e-6)


def test_adds_to_the_reward_and_leaves_rows_without_verdict_at_zero() -> None:
    batch = make_batch([2, 4, 6, 6], rewards=[1, 1, 0, 1], groups=[0] * 4, valid=[True, True, True, False])
    assert rewards(SMALL, batch) == [1, 0.75, -0.5, 0]
    odd = replace(batch, rewards_B=torch.tensor([1, 1, 0, float("nan")]))
    assert rewards(SMALL, odd) == [1, 0.75, -0.5, 0]


def test_length_is_of_the_completion_whatever_was_masked_and_however_long_the_prompt() -> None:
    batch = make_batch([6, 3], rewards=[1, 1], groups=[0, 0])
    assert batch.lengths_B.tolist() == [6, 3]
    masked = with_mask(batch, torch.zeros_like(batch.loss_mask_BT))
    assert rewards(SMALL, masked) == rewards(SMALL, batch) == [0.5, 0.875]
    longer = replace(batch, prompt_lengths_B=torch.tensor([PROMPT + 2, PROMPT]))
    assert rewards(SMALL, longer) == [0.75, 0.875]


def test_no_rows_and_no_factor() -> None:
    batch = make_batch([6, 3], rewards=[1, 1], groups=[0, 0])
    assert SMALL.rewards(batch.rows(slice(0, 0))).shape == (0,)
    assert rewards(SoftOverlong(max_length=2, buffer=1, factor=0.0), batch) == [1, 1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_length": 0}, "shaping.max_length"),
        ({"buffer": 0}, "shaping.buffer"),
        ({"buffer": 20481}, "shaping.buffer"),
        ({"factor": -1.0}, "shaping.factor"),
        ({"factor": float("inf")}, "shaping.factor"),
        ({"factor": float("nan")}, "shaping.factor"),
    ],
)
def test_refuses_fields_out_of_range(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SoftOverlong(**fields)  # type: ignore[arg-type]
