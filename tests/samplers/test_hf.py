"""Sampling from the training model: lengths, stops, log-probabilities, and the distribution itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.samplers import HFSampler
from delta_lightning.types import SamplingParams
from support.models import EOS, tiny_model
from support.sampling import assert_scores, context, open_session, prompts, sample


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_every_prompt_gets_its_group_and_rows_stop_where_they_should(family: str) -> None:
    given = prompts([3, 7, 1, 12])
    done = sample(open_session(tiny_model(family, vocabulary=8)), given, 4)
    assert set(done) == {(p.id, i) for p in given for i in range(4)}
    finished = [c.finish_reason for c in done.values()]
    assert {"stop", "length"} == set(finished), "8 tokens and 12 positions: both must occur, or the test shows nothing"
    for c in done.values():
        assert (c.token_ids[-1] == EOS) == (c.finish_reason == "stop")
        assert EOS not in c.token_ids[:-1]
        assert len(c.token_ids) == len(c.logprobs) == len(c.raw_logprobs) <= 12
        assert c.finish_reason == "stop" or len(c.token_ids) == 12


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
@pytest.mark.parametrize("params", [{}, {"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.8, "top_k": 5}])
def test_logprobs_are_those_of_the_model(family: str, params: dict[str, float]) -> None:
    model, given = tiny_model(family, vocabulary=8), prompts([3, 7, 1, 12])
    done = sample(open_session(model), given, 3, **params)
    assert_scores(model, given, done, params.get("temperature", 1.0))
    for c in done.values():
        if "top_k" not in params:
            assert list(c.logprobs) == list(c.raw_logprobs)
        else:  # mass was cut away, so what is left is more probable
            assert all(a >= b - 1e-6 for a, b in zip(c.logprobs, c.raw_logprobs, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_logprobs_are_those_of_the_model_on_a_gpu(family: str) -> None:
    model, given = tiny_model(family, vocabulary=8).cuda(), prompts([3, 7, 1, 12])
    session = HFSampler().open(replace(context(model), device=torch.device("cuda")))
    done = sample(session, given, 3)
    assert_scores(model.cpu(), given, done, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_precision_samples(dtype: torch.dtype) -> None:
    model = tiny_model(vocabulary=8, dtype=dtype)
    for c in sample(open_session(model), prompts([3, 7]), 4).values():
        assert all(lp <= 0 for lp in c.raw_logprobs) and len(c.raw_logprobs) == len(c.token_ids)


def test_logits_that_are_not_finite_stop_the_run() -> None:
    model = tiny_model(vocabulary=8)
    model.lm_head.weight.data[3, 0] = float("nan")
    with pytest.raises(RunError, match="not finite at token 0"):
        sample(open_session(model), prompts([3]), 2)


def test_draws_do_not_depend_on_batch_or_order() -> None:
    model = tiny_model(vocabulary=16)
    given = prompts([3, 7, 1, 12, 5])
    whole = sample(open_session(model), given, 4)
    pieces = sample(open_session(model, max_rows=4), given[::-1], 4)
    threads = sample(open_session(model, threads=3), given, 4)
    assert {k: list(c.token_ids) for k, c in whole.items()} == {k: list(c.token_ids) for k, c in threads.items()}
    assert {k: list(c.token_ids) for k, c in whole.items()} == {k: list(c.token_ids) for k, c in pieces.items()}
    other = sample(open_session(model), given, 4, seed=1)
    assert {k: list(c.token_ids) for k, c in whole.items()} != {k: list(c.token_ids) for k, c in other.items()}


def test_the_probe_scores_given_tokens() -> None:
    model = tiny_model(vocabulary=8)
    [got] = open_session(model).logprobs([[2, 3, 4, 5]])
    with torch.no_grad():
        full = torch.log_softmax(model(input_ids=torch.tensor([[2, 3, 4, 5]])).logits[0, :-1], -1)
    torch.testing.assert_close(got, full.gather(1, torch.tensor([[3], [4], [5]]))[:, 0], atol=1e-6, rtol=0)


def test_versions_follow_weight_updates() -> None:
    model = tiny_model(vocabulary=8)
    session = open_session(model)
    receipt = session.update_weights(7, model.named_parameters())
    assert receipt.version == 7 and receipt.num_tensors == len(list(model.named_parameters()))
    assert {c.version for c in sample(session, prompts([3]), 2).values()} == {7}


def test_no_room_for_a_row_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_rows"):
        HFSampler(max_rows=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_generator_that_is_closed_gives_the_model_back(threads: int) -> None:
    model = tiny_model(vocabulary=16)
    before = model.config._attn_implementation, torch.get_num_threads()
    session = open_session(model, threads=threads)
    running = session.generate(prompts([3, 5]), num_completions=8, params=SamplingParams(max_new_tokens=50), seed=0)
    next(running)
    assert model.config._attn_implementation != before[0]
    running.close()
    assert (model.config._attn_implementation, torch.get_num_threads()) == before


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_near_temperature_zero_it_is_greedy_generate(family: str) -> None:
    """Beside `transformers.generate` itself, on sequences longer than the window of three of Olmo3's layers."""
    model, given = tiny_model(family, vocabulary=32, num_hidden_layers=4), prompts([3, 12, 7])
    done = sample(open_session(model, max_rows=2), given, 1, temperature=1e-4, max_new_tokens=30)
    for prompt in given:
        ids = torch.tensor([prompt.token_ids])
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30)
        assert list(done[prompt.id, 0].token_ids) == out[0, len(prompt.token_ids) :].tolist()


def test_completions_do_not_depend_on_the_order_of_prompts_bit_by_bit() -> None:
    model, given = tiny_model(vocabulary=16), prompts([3, 7, 1, 12, 5, 3])
    one, other = (sample(open_session(model, max_rows=8, threads=2), order, 4) for order in (given, given[::-1]))
    assert one == other
