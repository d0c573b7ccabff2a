"""The view's promises: order, draws and caches that no cut and no number of ranks can change."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from delta_lightning.models.scorer import Scorer
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.view import RolloutView
from delta_lightning.types import Need
from support.models import tiny_model
from support.steps import StepSetup, make_buffer
from support.world import run_ranks


def view(cache: HiddenCache | None = None, micro: int = 2) -> RolloutView:
    torch.set_num_threads(1)
    model = tiny_model()
    buffer = make_buffer(model, StepSetup(micro=micro))
    return RolloutView(
        buffer.experience.batch, micro=buffer.micro, scorer=Scorer(model=model), needs=frozenset({Need.HIDDEN, Need.ENTROPY}),
        cache=cache or HiddenCache(), ranks=Ranks.current(), seed=(0, 0),
    )  # fmt: skip


def gathered(micro: int) -> dict[str, Any]:
    """Everything in the global order of sequences, as every rank sees it."""
    one = view(micro=micro)
    mask = one.batch.loss_mask_BT
    return {"draws": one.gather(one.uniform("test")[mask]), "logprobs": one.gather(one.logprobs_BT()[mask])}


@pytest.mark.parametrize("size", [2, 3])
def test_order_and_draws_are_global(size: int) -> None:
    want = gathered(2)
    assert want["draws"].unique().numel() == len(want["draws"])
    for got in [gathered(5), *run_ranks(size, gathered, 2)]:
        assert torch.equal(got["draws"], want["draws"])
        torch.testing.assert_close(got["logprobs"], want["logprobs"], atol=1e-5, rtol=0)


def test_draws_depend_on_the_purpose() -> None:
    one = view()
    assert not torch.equal(one.uniform("a"), one.uniform("b"))


def test_passes_are_repeatable_ordered_and_whole_with_and_without_a_cache() -> None:
    kept, computed, halved = (
        view(),
        view(HiddenCache(device_gib=0, host_gib=0)),
        view(HiddenCache(dtype="bfloat16", device_gib=0)),
    )
    assert (kept.caches_hidden, computed.caches_hidden, halved.caches_hidden) == (True, False, True)
    assert (
        computed.cache_bytes == 0 and halved.cache_bytes * 2 == kept.cache_bytes == int(kept.batch.loss_mask_BT.sum()) * 32 * 4
    )
    first = list(kept.passes())
    assert [part.start for part, _ in first] == [0, *(part.stop for part, _ in first)][:-1]
    assert first[-1][0].stop == kept.batch.num_sequences
    for other in (list(kept.passes()), list(computed.passes())):
        for (part_a, a), (part_b, b) in zip(first, other, strict=True):
            assert part_a == part_b and torch.equal(a.hidden_ND, b.hidden_ND) and torch.equal(a.logprobs_BT, b.logprobs_BT)
    again = view(HiddenCache(dtype="bfloat16", device_gib=0, host_gib=0))
    for (_, a), (_, b), (_, c) in zip(first, halved.passes(), again.passes(), strict=True):
        assert torch.equal(a.hidden_ND.to(torch.bfloat16), b.hidden_ND) and torch.equal(b.hidden_ND, c.hidden_ND)


def test_hidden_states_are_those_that_predict_the_trained_tokens() -> None:
    one = view()
    weight = tiny_model().lm_head.weight
    for part, scores in one.passes():
        rows = one.batch.rows(part)
        log_p = torch.log_softmax(scores.hidden_ND @ weight.T, -1)
        predicted = log_p.gather(1, rows.token_ids_BT[rows.loss_mask_BT][:, None])[:, 0]
        torch.testing.assert_close(predicted, scores.logprobs_BT[rows.loss_mask_BT], atol=1e-5, rtol=0)


def test_a_smaller_mask_takes_tokens_out_of_every_score() -> None:
    one, whole = view(), view()
    smaller = one.batch.loss_mask_BT & (one.uniform("drop") < 0.5)
    one.shrink(smaller)
    assert torch.equal(one.batch.loss_mask_BT, smaller)
    for logprobs in (one.batch.raw_logprobs_BT, one.batch.behaviour_logprobs_BT):
        assert torch.equal(logprobs != 0, smaller)
    for (part, got), (_, want) in zip(one.passes(), whole.passes(), strict=True):
        before, after = whole.batch.loss_mask_BT[part], smaller[part]
        assert torch.equal(got.hidden_ND, want.hidden_ND[after[before]])
        assert torch.equal(got.logprobs_BT, want.logprobs_BT * after)
        assert torch.equal(got.entropies_BT, want.entropies_BT * after)
