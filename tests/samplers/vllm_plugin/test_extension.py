"""What a worker answers. Without vLLM: the worker is a double."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from delta_lightning.samplers.vllm_plugin import CUTS
from delta_lightning.samplers.vllm_plugin.extension import WorkerExtension
from delta_lightning.samplers.vllm_plugin.receipts import Receipt
from delta_lightning.samplers.vllm_warp import KeptMass


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[int, float]]:
    """What the logits processor has recorded."""
    found: dict[str, dict[int, float]] = {"a": {0: -0.5, 1: -0.25}, "b": {0: -1.0}, "c": {0: -2.0}}
    monkeypatch.setattr(KeptMass, "recorded", found)
    return found


def worker(**changes: Any) -> Any:
    made: Any = WorkerExtension()
    model = {
        "dtype": torch.bfloat16, "max_model_len": 99, "logprobs_mode": "processed_logprobs", "logits_processors": [CUTS],
        "hf_text_config": SimpleNamespace(vocab_size=258, model_type="qwen3", hidden_size=64),
    }  # fmt: skip
    made.vllm_config = SimpleNamespace(
        model_config=SimpleNamespace(**(model | changes)),
        weight_transfer_config=SimpleNamespace(backend="delta_lightning_http"),
        scheduler_config=SimpleNamespace(max_num_seqs=7, async_scheduling=False),
    )
    return made


def test_it_describes_the_server() -> None:
    said = worker().delta_describe()
    assert said["config"]["model_type"] == "qwen3" and said["config"]["num_hidden_layers"] is None
    del said["config"]
    assert said == {
        "dtype": "bfloat16", "vocabulary": 258, "context": 99, "max_sequences": 7, "backend": "delta_lightning_http",
        "logprobs_mode": "processed_logprobs", "async_scheduling": False, "cuts": True,
    }  # fmt: skip
    assert not worker(logits_processors=None).delta_describe()["cuts"]
    bare = worker()
    bare.vllm_config.weight_transfer_config = None
    assert bare.delta_describe()["backend"] == "none"


def test_masses_are_taken_once(recorded: dict[str, dict[int, float]]) -> None:
    asked = worker()
    assert asked.delta_take_mass([["a", 2], ["nobody", 3]]) == {"a": [-0.5, -0.25]}
    assert asked.delta_take_mass([["a", 2]]) == {} and set(recorded) == {"b", "c"}


def test_masses_that_nobody_asks_for_are_forgotten(recorded: dict[str, dict[int, float]]) -> None:
    asked = worker()
    assert asked.delta_forget_mass(["b", "nobody"]) == {"forgotten": 1} and set(recorded) == {"a", "c"}
    assert asked.delta_forget_mass([]) == {"forgotten": 2} and not recorded


def test_the_receipt_is_that_of_the_last_whole_update() -> None:
    asked = worker()
    assert asked.delta_receipt() == {}
    asked.weight_transfer_engine = SimpleNamespace(receipt=None)
    assert asked.delta_receipt() == {}
    receipt = Receipt(4)
    given = {"w": torch.ones(3, 2), "v": torch.ones(2, dtype=torch.bfloat16)}
    assert list(receipt.note(given.items())) == list(given.items())
    asked.weight_transfer_engine.receipt = receipt
    said = asked.delta_receipt()
    assert (said["version"], said["num_bytes"], list(said["checksums"])) == (4, 28, ["w", "v"])
