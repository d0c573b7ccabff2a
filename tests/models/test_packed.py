"""Packed rows have the scores, hidden states and gradients of padded ones; their neighbours do not show."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.models import Packed, Padded, RowLayout
from delta_lightning.models.recomputing import recompute_layers
from delta_lightning.models.scorer import Scorer
from delta_lightning.testing.worlds import make_batch
from delta_lightning.types import Need, RolloutBatch, TokenScores
from support.models import tiny_model
from support.runs import run, start
from support.sharded import cut, gradients, values
from support.world import run_ranks

NEEDS = frozenset({Need.ENTROPY, Need.SUM_P_SQUARED, Need.HIDDEN})
LENGTHS = [21, 3, 1, 12, 9]  # with their prompts of two tokens longer and shorter than the window of 8


def rows(lengths: list[int]) -> RolloutBatch:
    return make_batch(lengths, rewards=[0.0] * len(lengths), groups=[0] * len(lengths), pad=3)


def model_of(family: str, tied: bool, attention: str = "sdpa") -> Any:
    model = tiny_model(family, dtype=torch.float64, num_hidden_layers=4, tie_word_embeddings=tied)
    model.set_attn_implementation(attention)
    return model


def scored(model: Any, batch: RolloutBatch, layout: RowLayout) -> tuple[TokenScores, dict[str, torch.Tensor]]:
    """Scores, and the gradients of a loss in log-probabilities and entropies."""
    scores = Scorer(model=model, temperature=0.7, layout=layout).score(batch, NEEDS)
    assert scores.entropies_BT is not None
    (scores.logprobs_BT.square().sum() - 0.1 * scores.entropies_BT.sum()).backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return scores, found


def close(one: torch.Tensor | None, other: torch.Tensor | None, tolerance: float = 1e-10) -> None:
    assert one is not None and other is not None and one.shape == other.shape
    worst, largest = (float(value.detach().abs().max()) for value in (one - other, other))
    assert worst <= tolerance * max(1.0, largest)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_packed_rows_are_scored_like_padded_ones(family: str, tied: bool, attention: str) -> None:
    tolerance = 1e-10 if attention == "sdpa" else 1e-6  # eager attention takes its softmax in float32
    model = model_of(family, tied, attention)
    if family == "olmo3":
        assert set(model.config.layer_types) == {"sliding_attention", "full_attention"}
    packed, packed_grads = scored(model, rows(LENGTHS), Packed())
    padded, padded_grads = scored(model, rows(LENGTHS), Padded())
    for name in ("logprobs_BT", "entropies_BT", "sum_p_squared_BT", "hidden_ND"):
        close(getattr(packed, name), getattr(padded, name), tolerance)
    for name, gradient in padded_grads.items():
        close(packed_grads[name], gradient, tolerance)


def test_layers_that_run_again_give_the_same() -> None:
    model = recompute_layers(model_of("olmo3", True))
    packed, padded = scored(model, rows(LENGTHS), Packed())[1], scored(model, rows(LENGTHS), Padded())[1]
    for name, gradient in padded.items():
        close(packed[name], gradient)


@pytest.mark.parametrize("layout", [Padded(), Packed()])
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_the_neighbours_do_not_show(family: str, layout: RowLayout) -> None:
    batch, model = rows(LENGTHS), tiny_model(family, num_hidden_layers=4)
    scorer = Scorer(model=model, layout=layout)
    with torch.no_grad():
        together = scorer.score(batch, frozenset()).logprobs_BT
        for row in range(len(LENGTHS)):
            alone = scorer.score(batch.rows(slice(row, row + 1)), frozenset()).logprobs_BT
            assert float((alone - together[row]).abs().max()) <= 1e-5


@pytest.mark.parametrize("layout", [Padded(), Packed()])
def test_no_rows_touch_every_parameter_and_move_none(layout: RowLayout) -> None:
    scores, found = scored(tiny_model(), rows(LENGTHS).rows(slice(0, 0)), layout)
    assert scores.logprobs_BT.shape[0] == 0 and scores.hidden_ND is not None and len(scores.hidden_ND) == 0
    assert found and all(not bool(gradient.any()) for gradient in found.values())


def test_masked_rows_and_holes_in_the_mask_leave_the_rest_as_it_is() -> None:
    batch = rows(LENGTHS)
    mask_BT = batch.loss_mask_BT & (torch.rand(batch.loss_mask_BT.shape, generator=torch.Generator().manual_seed(0)) < 0.5)
    mask_BT[3] = False
    model, holes = model_of("qwen3", True), RolloutBatch(**vars(batch) | {"loss_mask_BT": mask_BT})
    packed, padded = scored(model, holes, Packed())[0], scored(model, holes, Padded())[0]
    close(packed.logprobs_BT, padded.logprobs_BT)
    close(packed.hidden_ND, padded.hidden_ND)


@pytest.mark.parametrize("layout", [Padded(), Packed()])
def test_a_first_token_that_would_be_trained_is_refused(layout: RowLayout) -> None:
    batch = rows([3, 4])
    mask_BT = batch.loss_mask_BT.clone()
    mask_BT[1, 0] = True
    with pytest.raises(ValueError, match="the first token of a row has no prediction"):
        layout.predicting(tiny_model().model, batch.token_ids_BT, batch.attention_mask_BT, mask_BT)


def test_a_kernel_of_variable_length_is_told_where_rows_begin_in_plain_numbers() -> None:
    seen: dict[str, Any] = {}

    def body(**given: Any) -> Any:
        seen.update(given)
        return SimpleNamespace(last_hidden_state=torch.zeros(1, given["input_ids"].shape[1], 4))

    body.config = SimpleNamespace(_attn_implementation="flash_attention_2")  # type: ignore[attr-defined]
    batch = rows([3, 1])
    Packed().predicting(body, batch.token_ids_BT, batch.attention_mask_BT, batch.loss_mask_BT)
    assert seen["cu_seq_lens_q"].tolist() == [0, 5, 8] == seen["cu_seq_lens_k"].tolist()
    assert seen["cu_seq_lens_q"].dtype is torch.int32
    assert seen["max_length_q"] == seen["max_length_k"] == 5 and isinstance(seen["max_length_q"], int)
    assert seen["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]
    assert "attention_mask" not in seen and seen["use_cache"] is False


def varlen(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens_q: torch.Tensor, cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int, max_seqlen_k: int, softmax_scale: float, causal: bool, window_size: tuple[int, int] = (-1, -1),
    dropout_p: float = 0.0, deterministic: bool = False,
) -> torch.Tensor:  # fmt: skip
    """What flash attention's kernel of variable length computes: q, k, v are [tokens, heads, head_dim]."""
    assert causal and not dropout_p and torch.equal(cu_seqlens_q, cu_seqlens_k)
    assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max()) and isinstance(max_seqlen_q, int)
    out = torch.empty_like(q)
    for first, end in pairwise(cu_seqlens_q.tolist()):
        query, key, value = (x[first:end].transpose(0, 1) for x in (q, k, v))
        shared = query.shape[0] // key.shape[0]
        scores = query @ key.repeat_interleave(shared, 0).mT * softmax_scale
        distance = torch.arange(end - first)[:, None] - torch.arange(end - first)
        hidden = (distance < 0) | ((distance > window_size[0]) if window_size[0] >= 0 else False)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        out[first:end] = (weights @ value.repeat_interleave(shared, 0)).transpose(0, 1)
    return out


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_the_path_to_a_kernel_of_variable_length(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models' own code down to the kernel, which is stood in for: sliding windows, shared heads, no mask, no padding."""
    from transformers import modeling_flash_attention_utils as flash

    def dense(*_: Any, **__: Any) -> None:
        raise AssertionError("rows would see each other")

    model = model_of(family, tied=True)
    padded, padded_grads = scored(model, rows(LENGTHS), Padded())
    monkeypatch.setattr(flash, "_loaded_implementation", None)
    monkeypatch.setattr(flash, "_lazy_imports", lambda *_, **__: (dense, varlen, None, None, None))
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "flash_attention_2")
    packed, packed_grads = scored(model, rows(LENGTHS), Packed())
    close(packed.logprobs_BT, padded.logprobs_BT)
    close(packed.hidden_ND, padded.hidden_ND)
    for name, gradient in padded_grads.items():
        close(packed_grads[name], gradient)
    monkeypatch.setattr(flash, "_loaded_implementation", None)  # the next to ask gets the real one


def test_the_installed_flash_attention_takes_these_names() -> None:
    """A name that it does not know would vanish in its **kwargs, and the kernel would wait for the device in every layer."""
    import inspect

    from transformers.modeling_flash_attention_utils import _flash_attention_forward

    names = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "position_ids"}
    assert names <= set(inspect.signature(_flash_attention_forward).parameters)


def test_what_a_mask_over_all_pairs_costs_is_said_and_bounded() -> None:
    assert Packed().check("flash_attention_2", 1 << 20) == []
    assert "S * S bytes" in Packed().check("sdpa", None)[0]
    assert Padded().check("sdpa", 1 << 20) == []
    with pytest.raises(ConfigError, match=r"at most 16,384 tokens .*\(256 MiB\), got .*32,768 \(1,024 MiB\)"):
        Packed().check("eager", 32768)


def test_costs() -> None:
    assert Packed().cost([5, 3, 1]) == 9 and Padded().cost([5, 3, 1]) == 15
    assert Packed().cost([]) == Padded().cost([]) == 0


def sharded() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    model = cut(lambda: tiny_model("olmo3", dtype=torch.float64))
    return gradients(model, layout=Packed()), values(model)


def test_packed_rows_on_two_sharded_ranks() -> None:
    model = tiny_model("olmo3", dtype=torch.float64)
    wanted = gradients(model)
    for found, _ in run_ranks(2, sharded):
        for name, gradient in wanted.items():
            close(found[name], gradient)


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_a_packed_run_ends_where_a_padded_one_does(family: str) -> None:
    """Float32: each of 6 updates differs by rounding, of which plain SGD at a rate of 0.5 makes no more than the gradient's."""
    padded, packed = run(family=family), run(family=family, layout=Packed())
    began = start(family)
    assert any(not torch.equal(began[name], value) for name, value in padded.values.items()), "nothing was learnt"
    for name, value in padded.values.items():
        close(packed.values[name], value, 1e-5)
