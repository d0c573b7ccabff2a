"""Weights that do not arrive stop the run before it samples, with the numbers and what they look like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.interfaces import SamplerContext
from delta_lightning.models.weights import weights_of
from delta_lightning.samplers import HFSampler
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.weight_check import WeightCheck, WeightProof, check_text, probe_sequences
from delta_lightning.types import SamplingParams, SyncReceipt
from support.copies import CopySession, first_half, nothing, swapped_layers
from support.models import NumberTokenizer, tiny_model
from support.prompts import number_prompts, train


def prove(session: Any, model: Any, versions: int = 3, check: WeightCheck | None = None) -> dict[str, float]:
    """Some updates with training between them; metrics of all."""
    proof, book = WeightProof(check or WeightCheck(), number_prompts(), 256), MetricBook()
    for version in range(versions):
        proof.deliver(session, version, model, book)
        proof.probe(session, version, model, book)
        train(model)
    return book.take(Ranks())


def hf_session(model: Any) -> Any:
    return HFSampler().open(SamplerContext(model=model, tokenizer=NumberTokenizer(), device=torch.device("cpu")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sampler_that_shares_the_model_agrees_exactly(dtype: torch.dtype) -> None:
    model = tiny_model(dtype=dtype)
    values = prove(hf_session(model), model)
    assert values["sync/probe_max_nats"] == 0.0
    assert values["sync/moved_max_nats"] > 0.05, "the weights moved between updates"
    assert values["sync/sent_mib"] == sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_a_copy_that_gets_all_weights_passes(family: str, tied: bool) -> None:
    model = tiny_model(family, tie_word_embeddings=tied)
    values = prove(CopySession(model, NumberTokenizer()), model)
    assert values["sync/probe_max_nats"] < 1e-4


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "stale weights": ({"fault": nothing}, "after the update to version 1 .* still serves stale weights"),
    "half of the parameters": (
        {"fault": first_half},
        "after the update to version 1 .* did not arrive, or arrived in another's",
    ),
    "two layers swapped": ({"fault": swapped_layers}, "after the update to version 0 .* arrived in another's place"),
    "a tied head forgotten": ({"forget_tied_head": True}, "after the update to version 1 .* Some parameters did not arrive"),
    "another dtype": ({"dtype": torch.bfloat16}, "after the update to version 0 .* looks like another dtype: give the sampler"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_planted_faults_are_caught_within_one_step_and_named(family: str, name: str) -> None:
    options, message = FAULTS[name]
    model = tiny_model(family)
    with pytest.raises(RunError, match=message) as caught:
        prove(CopySession(model, NumberTokenizer(), **options), model)
    assert "252 probe tokens" in str(caught.value) and "allows 0.0001 and 0.001" in str(caught.value)


def test_of_several_engines_the_one_that_is_off_is_named() -> None:
    """Also where it is off at one token only, and another engine is farther in the mean but within the limits."""
    model = tiny_model()
    session = CopySession(model, NumberTokenizer())

    def by_engine(token_ids: Any) -> dict[str, list[Tensor]]:
        exact = session.logprobs(token_ids)
        spike = [value.clone() for value in exact]
        spike[0][0] += 0.01
        return {"at a": [value + 9e-5 for value in exact], "at b": spike, "at c": exact}

    session.logprobs_by_engine = by_engine  # type: ignore[method-assign]
    wanted = r"the sampler at b's log-probabilities of 252 .* 3.97e-05 nats in the mean and 0\.01 at"
    with pytest.raises(RunError, match=wanted):
        prove(session, model)


def test_another_dtype_passes_where_it_is_allowed() -> None:
    model = tiny_model()
    values = prove(
        CopySession(model, NumberTokenizer(), dtype=torch.bfloat16), model, check=WeightCheck(mean_nats=0.05, max_nats=1)
    )
    assert 1e-4 < values["sync/probe_mean_nats"] < 0.05


def test_numbers_that_are_not_finite_are_no_agreement() -> None:
    model = tiny_model()
    session = CopySession(model, NumberTokenizer(), fault=lambda weights: [(n, v * float("nan")) for n, v in weights])
    with pytest.raises(RunError, match="differ from the trainer's by nan"):
        prove(session, model)


def test_weights_that_training_has_spoiled_are_not_blamed_on_their_delivery() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(RunError, match=r"The trainer's own are not finite, .* Lower the learning rate"):
        prove(hf_session(model), model)


def test_another_tokenizer_is_caught_by_the_first_completion() -> None:
    session = hf_session(tiny_model())
    params = SamplingParams(max_new_tokens=12)
    [completion] = session.generate(number_prompts(1), num_completions=1, params=params, seed=0)
    check_text(completion, NumberTokenizer())
    other = replace(completion, text="".join(chr(97 + token % 26) for token in completion.token_ids))
    with pytest.raises(RunError, match=r"reads tokens \[.*\] \.\.\. as '\w+', the trainer's .* not have the same tokenizer"):
        check_text(other, NumberTokenizer())


class Careless(CopySession):
    """Reports what a test tells it to."""

    def __init__(self, model: Any, **report: int) -> None:
        super().__init__(model, NumberTokenizer())
        self.report = report

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        return replace(super().update_weights(version, weights), **self.report)


class Lazy(CopySession):
    """Reads one tensor only."""

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        return super().update_weights(version, [next(iter(weights))])


def test_receipts_are_held_against_what_was_sent() -> None:
    model = tiny_model()
    total = len(list(model.parameters()))
    with pytest.raises(RunError, match="serves weights of version 7 after it was given those of version 0"):
        prove(Careless(model, version=7), model)
    with pytest.raises(RunError, match=f"received 3 of the {total} tensors of version 0"):
        prove(Careless(model, num_tensors=3), model)
    with pytest.raises(RunError, match=r"\(12 of \d+ bytes\)"):
        prove(Careless(model, num_bytes=12), model)
    with pytest.raises(RunError, match="left weights of version 0 unread after 1 tensors"):
        prove(Lazy(model, NumberTokenizer()), model)


def test_the_probe_is_cut_from_the_prompts_and_can_be_left_out() -> None:
    given = number_prompts(2)  # 4 and 5 tokens
    pieces = probe_sequences(given, 3, 5)
    stream = [*given[0].token_ids, *given[1].token_ids]
    assert [token for piece in pieces for token in piece] == (stream * 2)[:15]
    assert probe_sequences(given, 0, 5) == [] == probe_sequences([], 2, 5)
    model = tiny_model()
    assert "sync/probe_max_nats" not in prove(
        CopySession(model, NumberTokenizer(), fault=nothing), model, check=WeightCheck(sequences=0)
    )


def test_weights_are_named_once_and_carry_no_gradient() -> None:
    model = tiny_model()
    names = [name for name, value in weights_of(model) if not value.requires_grad]
    assert len(names) == len(set(names)) == len(list(model.parameters())) and "lm_head.weight" not in names


@pytest.mark.parametrize("bad", [{"sequences": -1}, {"tokens": 1}, {"mean_nats": -1.0}, {"max_nats": -0.1}])
def test_ranges_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"weight_check.{next(iter(bad))}"):
        WeightCheck(**bad)
