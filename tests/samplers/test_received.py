"""Weights on their way: counted, cast, read once; what is missing; the name of a tied head."""

from __future__ import annotations

import pytest
import torch

from delta_lightning.errors import RunError
from delta_lightning.samplers.received import Received, tied_embedding
from support.models import tiny_model

WEIGHTS = [("a", torch.nn.Parameter(torch.ones(3))), ("b", torch.nn.Parameter(torch.zeros(2, 2)))]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_they_are_counted_as_they_came_and_given_as_wanted(dtype: torch.dtype | None) -> None:
    received = Received(WEIGHTS, dtype)
    given = dict(received)
    assert {name: value.shape for name, value in given.items()} == {"a": (3,), "b": (2, 2)}
    assert all(value.dtype == (dtype or torch.float32) and not value.requires_grad for value in given.values())
    assert received.names == {"a", "b"} and received.num_bytes == 28


def test_they_are_read_once_by_whoever_comes_first() -> None:
    received = Received(WEIGHTS)
    name, _ = next(iter(received))
    assert name == "a" and received.names == {"a"}
    received.exhaust()
    assert received.names == {"a", "b"} and list(received) == []


def test_what_is_missing_is_named() -> None:
    received = Received(WEIGHTS)
    received.exhaust()
    received.refuse_missing({"a", "b"}, 3)
    with pytest.raises(RunError, match="weights of version 3: 2 of 3 parameters were not sent, the first of them c"):
        received.refuse_missing({"a", "d", "c"}, 3)


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_a_tied_head_comes_as_the_embedding(family: str) -> None:
    assert tied_embedding(tiny_model(family)) == "model.embed_tokens.weight"
    assert tied_embedding(tiny_model(family, tie_word_embeddings=False)) is None
