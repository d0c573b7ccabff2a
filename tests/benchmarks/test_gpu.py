"""The benchmark of one GPU runs on a CPU too, and its figures are what they are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.gpu import run
from transformers import Qwen3Config, Qwen3ForCausalLM

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("gpu")
    file = run.main(["--small", "--out", str(folder), "--peak-tflops", "0.001"])
    found: dict[str, Any] = json.loads(file.read_text())
    assert (folder / "results.md").read_text() == run.page(found)
    return found


def test_every_length_has_every_phase_with_and_without_delta(result: dict[str, Any]) -> None:
    assert [row["tokens"] for row in result["rows"]] == [32, 64]
    for row in result["rows"]:
        assert set(row["arms"]) == {"delta", "uniform"}
        for arm in row["arms"].values():
            assert set(arm["seconds"]) == {"score", "credit", "update", "step"}
            assert all(value > 0 for value in arm["seconds"].values())
        delta, uniform = (row["arms"][name]["seconds"] for name in ("delta", "uniform"))
        assert delta["credit"] > uniform["credit"]
        assert row["credit_share"] == pytest.approx(1 - uniform["step"] / delta["step"])


def test_figures_follow_from_the_seconds(result: dict[str, Any]) -> None:
    for row in result["rows"]:
        tokens = row["tokens"] * row["sequences"]
        for arm in row["arms"].values():
            seconds, flops = arm["seconds"], arm["model_flops"]
            assert arm["tokens_per_second"]["update"] == pytest.approx(tokens / seconds["update"])
            assert arm["mfu"]["update"] == pytest.approx(flops["update"] / seconds["update"] / 1e9)
            assert flops["update"] == 3 * flops["score"] and flops["step"] == 4 * flops["score"]


def test_model_flops_are_those_that_run(result: dict[str, Any]) -> None:
    """Against torch's own count of a forward pass, whose attention counts all pairs and not the causal half."""
    from torch.utils.flop_counter import FlopCounterMode

    config = run.config_of(run.SMALL)
    assert isinstance(config, Qwen3Config)
    config._attn_implementation = "eager"  # its products are counted; those of sdpa's kernel for CPUs are not
    model = Qwen3ForCausalLM(config).eval()
    for row in result["rows"]:
        length, rows = row["tokens"], row["sequences"]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(rows, length, dtype=torch.int64))
        width = config.num_attention_heads * config.head_dim * config.num_hidden_layers
        masked = rows * 4 * width * (length * length - length * (length + 1) // 2)
        untrained = rows * 2 * 2 * config.vocab_size * config.hidden_size  # logits of two tokens of each row
        assert row["arms"]["delta"]["model_flops"]["score"] == counter.get_total_flops() - masked - untrained


def test_the_rollouts_train_all_but_the_first_two_tokens() -> None:
    [case, _] = run.cases(run.parsed(["--small"]), torch.device("cpu"))
    batch = run.rollouts(case, vocabulary=256)
    assert batch.token_ids_BT.shape == (8, 32) and bool(batch.attention_mask_BT.all())
    assert batch.loss_mask_BT.sum(1).tolist() == [30] * 8
    assert batch.group_ids_B.tolist() == [0] * 4 + [1] * 4


def test_models_above_four_billion_parameters_have_bfloat16_weights() -> None:
    options = run.parsed([])
    weights = {case.model: case.weights for case in run.cases(options, torch.device("cpu"))}
    assert weights == {"Qwen3-0.6B-Base": "float32", "Qwen3-1.7B-Base": "float32", "Qwen3-8B-Base": "bfloat16"}
    assert [case.rows for case in run.cases(options, torch.device("cpu"))] == [4, 1] * 3


def test_the_page_says_what_had_no_room(result: dict[str, Any], tmp_path: Path) -> None:
    lost = {"model": "large", "tokens": 16384, "out_of_memory": "tried to allocate 3 GiB"}
    text = run.page(result | {"rows": [*result["rows"], lost]})
    assert "| large | 16,384 | out of memory: tried to allocate 3 GiB |" in text
    assert text.count("| delta |") == len(result["rows"])


@pytest.mark.gpu
def test_a_published_shape_on_a_gpu(tmp_path: Path) -> None:
    file = run.main(["--models", "Qwen3-0.6B-Base", "--tokens", "1024", "--repeats", "1", "--out", str(tmp_path)])
    [row] = json.loads(file.read_text())["rows"]
    for arm in row["arms"].values():
        assert 0 < arm["peak_gib"]["update"] < 60 and (arm["mfu"] is None or 0 < arm["mfu"]["update"] < 1)
