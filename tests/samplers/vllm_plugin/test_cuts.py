"""Cuts as they come over HTTP: what the trainer writes is what the server's logits processor does."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from delta_lightning.functional.sampling import warp_logits
from delta_lightning.samplers.rows import Row
from delta_lightning.samplers.servers.question import Question
from delta_lightning.samplers.stopping import Bans, StopRules
from delta_lightning.samplers.vllm_warp import KeptMass
from delta_lightning.types import Prompt, SamplingParams
from support.models import NumberTokenizer

pytestmark = pytest.mark.vllm


class Tokenizer(NumberTokenizer):
    """Writes numbers, and reads them too."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [int(word) for word in text.split()]


def written(params: SamplingParams, name: str) -> tuple[Any, Bans]:
    """A request's extra arguments after a journey as JSON, and the bans that they were made of."""
    tokenizer = Tokenizer()
    bans = Bans(params, tokenizer=tokenizer, vocabulary=20)
    question = Question(params, StopRules(params, ends=[1], tokenizer=tokenizer, vocabulary=20), bans, "label")
    row = Row(prompt=Prompt(id="p", text="", token_ids=(2, 3), source="", reference={}), index=0, key=5, limit=8)
    return json.loads(json.dumps(question.body(row, name)))["sampling_params"].get("extra_args"), bans


def test_what_is_cut_is_what_was_asked_for() -> None:
    from delta_lightning.samplers.vllm_plugin.cuts import ServedCuts

    params = SamplingParams(top_p=0.9, top_k=6, min_p=0.05, bad_token_ids=(4, 7), bad_words=("9 3",))
    extra, bans = written(params, "request-1")
    assert bans.sequences, "or the test shows less than it says"
    processor = ServedCuts(None, torch.device("cpu"), False)
    cut = processor.cut(extra)
    assert cut is not None and cut.request == "request-1"
    processor._rows = {0: (cut, [9])}
    logits = torch.randn(1, 20, generator=torch.Generator().manual_seed(0))
    raw = torch.log_softmax(logits, -1)
    wanted = torch.log_softmax(warp_logits(bans.mask(raw, [[9]]), top_p=0.9, top_k=6, min_p=0.05), -1)
    got = processor.apply(logits.clone())
    torch.testing.assert_close(got, wanted)
    best = int(wanted.argmax())
    kept = KeptMass.recorded.pop("request-1")
    assert kept == {1: pytest.approx(float(raw[0, best] - wanted[0, best]))}


def test_requests_of_one_call_are_cut_together() -> None:
    from delta_lightning.samplers.vllm_plugin.cuts import ServedCuts

    processor = ServedCuts(None, torch.device("cpu"), False)
    one, other = (processor.cut(written(SamplingParams(top_k=6), name)[0]) for name in ("a", "b"))
    apart = processor.cut(written(SamplingParams(top_k=7), "c")[0])
    assert one is not None and other is not None and apart is not None
    assert one.bans is other.bans and one.params == other.params and one.request != other.request
    assert apart.bans is not one.bans


def test_a_request_without_cuts_carries_none() -> None:
    from delta_lightning.samplers.vllm_plugin.cuts import ServedCuts

    extra, _ = written(SamplingParams(temperature=0.7), "a")
    assert extra is None and ServedCuts(None, torch.device("cpu"), False).cut({}) is None
