"""The report's numbers, from tokens and coefficients written by hand."""

from __future__ import annotations

import json

import pytest
import torch

from delta_lightning.ablation.replay import Replay
from delta_lightning.ablation.summary import Sizes, by_string
from delta_lightning.errors import ConfigError
from support.ablation import GRADED, NAMES, TOKENS, hand_made, report


def test_distribution_by_side() -> None:
    found = report(hand_made(flat=[1.0] * 8, graded=GRADED), min_count=1)
    flat, graded = (found["assigners"][name]["coefficient"] for name in ("flat", "graded"))
    assert {side: flat[side]["effective_share"] for side in flat} == dict.fromkeys(flat, 1.0)
    assert {side: graded[side]["tokens"] for side in graded} == {"all": 8, "positive": 4, "negative": 2, "zero": 2}
    assert graded["positive"]["mean"] == 2.5 and graded["positive"]["std"] == pytest.approx(1.25**0.5, rel=1e-8)
    assert graded["positive"]["effective_share"] == pytest.approx(100 / (4 * 30), rel=1e-8)
    assert graded["all"]["negative_share"] == 0.125 and graded["all"]["zero_share"] == 0.125
    assert graded["negative"]["quantiles"][4] == -0.5 and (graded["all"]["min"], graded["all"]["max"]) == (-1.0, 4.0)
    every = graded["all"]
    assert sum(every["histogram"]) + every["below_histogram"] + every["above_histogram"] == 8
    assert found["rollouts"]["tokens_signal"] == 6


def test_agreement_is_over_tokens_with_an_advantage() -> None:
    found = report(hand_made(graded=GRADED, squared=[v * abs(v) for v in GRADED[:6]] + [9.0, -9.0], flat=[1.0] * 8))
    assert found["spearman"]["signal"] == [[1.0, 1.0, None], [1.0, 1.0, None], [None, None, None]]
    assert found["spearman"]["negative"][0] == [1.0, 1.0, None]


def test_rounding_neither_agrees_nor_orders_strings() -> None:
    """A constant of float32 arithmetic: its last bits rank nothing."""
    noise = [0.923 * (1 + k * 6e-8) for k in (0, 1, -1, 2, -2, 1, 0, -1)]
    found = report(hand_made(graded=GRADED, constant=noise), min_count=1)
    assert found["spearman"]["signal"][1] == [None, None]
    tokens = found["assigners"]["constant"]["tokens"]["signal"]
    assert len({row["mean"] for row in tokens["top"] + tokens["bottom"]}) == 1


def test_gradients() -> None:
    found = report(hand_made(a=GRADED, b=GRADED), [[4.0, -1.0], [-1.0, 1.0]])
    assert found["gradient_cosine"] == [[1.0, -0.5], [-0.5, 1.0]]
    assert [found["assigners"][name]["gradient_norm"] for name in "ab"] == [2.0, 1.0]


def test_tokens_that_read_the_same_are_one_string() -> None:
    values = torch.tensor(GRADED, dtype=torch.float64)
    assert by_string(torch.tensor(TOKENS), values, NAMES.__getitem__) == [("a", 2.0, 5), ("ü|", 1.0, 1), ("b", 0.5, 2)]


def test_top_and_bottom_need_the_count_and_never_share_a_string() -> None:
    tokens = report(hand_made(graded=GRADED), min_count=2)["assigners"]["graded"]["tokens"]
    assert tokens["signal"] == {
        "strings": 2,
        "top": [{"string": "a", "mean": 2.0, "count": 4}],
        "bottom": [{"string": "b", "mean": 0.5, "count": 2}],
    }
    assert tokens["negative"] == {"strings": 0, "top": [], "bottom": []}
    few = report(hand_made(graded=GRADED), min_count=1, top=1)["assigners"]["graded"]["tokens"]["signal"]
    assert [row["string"] for row in few["top"] + few["bottom"]] == ["a", "b"]


def test_shifts_are_told_apart() -> None:
    replayed = hand_made(n=GRADED)
    replayed.shifts["n"] = torch.tensor([0.0] * 6 + [0.5, -1.5], dtype=torch.float64)
    assert report(replayed)["assigners"]["n"]["shift"] == {"mean_abs": 0.25, "tokens_with_signal_only_by_shift": 2}


def test_no_tokens_at_all() -> None:
    nothing = torch.zeros(0, dtype=torch.float64)
    empty = Replay(
        sequence_N=nothing.long(), token_N=nothing.long(), advantage_N=nothing, logprob_N=nothing,
        coefficients={"a": nothing}, shifts={"a": nothing},
    )  # fmt: skip
    found = report(empty, [[0.0]])
    assert found["assigners"]["a"]["coefficient"] == dict.fromkeys(("all", "positive", "negative", "zero"))
    assert found["spearman"]["signal"] == [[None]] and found["gradient_cosine"] == [[None]]
    json.dumps(found, allow_nan=False)


def test_order_of_tokens_does_not_matter() -> None:
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    replayed = hand_made(a=GRADED, b=[1.0, 5.0, 2.0, 2.0, 0.0, 3.0, 1.0, 1.0])
    shuffled = Replay(
        sequence_N=replayed.sequence_N[order], token_N=replayed.token_N[order], advantage_N=replayed.advantage_N[order],
        logprob_N=replayed.logprob_N[order], shifts={}, coefficients={k: v[order] for k, v in replayed.coefficients.items()},
    )  # fmt: skip
    assert report(shuffled, min_count=1) == report(replayed, min_count=1)


def test_sizes_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"sizes.bins: wanted at least 1, got 0"):
        Sizes(bins=0)
