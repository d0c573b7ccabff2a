"""Layouts and token budgets on the command line: what is refused before a model loads."""

from __future__ import annotations

import pytest

from support.cli import Invoke


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--model.tokens_per_micro_batch=0",), "model.tokens_per_micro_batch: wanted at least 1 token"),
        (
            ("--model.layout=Packed", "--model.tokens_per_micro_batch=20000"),
            "model.layout Packed: wanted at most 16,384 tokens per micro-batch with sdpa attention",
        ),
        (("--model.layout=Paked",), "Packed"),
    ],
)
def test_refusals(args: tuple[str, ...], said: str, invoke: Invoke, loads: list[str]) -> None:
    refused = invoke(*args)
    assert refused.code == 2 and said in refused.err and "Traceback" not in refused.err
    assert loads == []


def test_a_layout_is_written_with_its_class(invoke: Invoke, loads: list[str]) -> None:
    printed = invoke("--model.layout=Packed", "--print_config")
    assert printed.code == 0 and "delta_lightning.models.Packed" in printed.out and loads == []
