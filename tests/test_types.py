"""Options of sampling: what is refused, and what cuts the distribution."""

from __future__ import annotations

from typing import Any

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.testing.worlds import make_batch
from delta_lightning.types import SamplingParams


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.0), ("temperature", -1.0), ("temperature", float("inf")), ("temperature", float("nan")),
        ("top_p", 0.0), ("top_p", 1.1), ("top_k", -1), ("min_p", 1.0), ("min_p", -0.1), ("max_new_tokens", 0),
        ("stop", ("a", "")), ("stop", "a"), ("bad_words", ("",)), ("stop_token_ids", (-1,)), ("bad_token_ids", (3, -2)),
    ],
)  # fmt: skip
def test_ranges_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"model\.sampling\.{field}"):
        SamplingParams(**{field: value})


def test_cuts_are_named() -> None:
    assert SamplingParams(temperature=0.6, stop=("x",), stop_token_ids=(3,)).cuts() == ()
    assert SamplingParams(top_p=0.9, min_p=0.1, bad_token_ids=(3,)).cuts() == ("top_p=0.9", "min_p=0.1", "bad_token_ids=(3,)")


def test_the_columns_that_a_batch_needs() -> None:
    batch = make_batch([3, 6], rewards=[1, 0], groups=[0, 0], pad=4)
    tokens = batch.attention_mask_BT.sum(1).tolist()
    assert batch.longest == max(tokens) == batch.token_ids_BT.shape[1] - 4
    assert batch.rows(slice(0, 1)).longest == tokens[0] < tokens[1]
    assert batch.rows(slice(0, 0)).longest == 2 == batch.cut(1).longest
