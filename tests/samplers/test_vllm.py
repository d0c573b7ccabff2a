"""Sampling by vLLM, in process: log-probabilities, draws, the distribution, weights in place, and the trainer left alone."""

from __future__ import annotations

import os
import random
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.samplers import HFSampler, VLLMSampler
from delta_lightning.types import Prompt, SamplingParams
from support.models import NumberTokenizer
from support.sampling import context, largest_gap, sample, shift
from support.sampling import tokens as tokens_of
from support.sampling import wide_prompts as prompts

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
TOLERANCE = 1e-4  # nats, float32


def model_of(family: str) -> Any:
    return Tiny(family=family, hidden_size=64, heads=2, kv_heads=1, layers=2, context=128, sliding_window=8).load(LoadContext())


@pytest.fixture(scope="module", params=["qwen3", "olmo3"])
def served(request: pytest.FixtureRequest) -> Iterator[SimpleNamespace]:
    """A tiny model, the engine that serves it, and how many ticks and threads there were."""
    model, ticks = model_of(request.param), []
    torch.set_float32_matmul_precision("high")
    before = SimpleNamespace(
        environment=dict(os.environ),
        set_num_threads=torch.set_num_threads,
        torch=torch.get_rng_state(),
        python=random.getstate(),
        threads=torch.get_num_threads(),
    )
    session = VLLMSampler(cache_gib=0.25).open(context(model, tick=lambda done, total: ticks.append((done, total))))
    after = SimpleNamespace(
        precision=torch.get_float32_matmul_precision(),
        torch=torch.get_rng_state(),
        python=random.getstate(),
        threads=torch.get_num_threads(),
    )
    torch.set_float32_matmul_precision("highest")
    yield SimpleNamespace(
        model=model,
        session=session,
        ticks=ticks,
        before=before,
        after=after,
        family=request.param,
        eos=model.config.eos_token_id,
    )
    session.close()
    session.close()
    with pytest.raises(RunError, match="closed"):
        session.logprobs([[2, 3]])


def test_every_prompt_gets_its_group_and_rows_stop_where_they_should(served: SimpleNamespace) -> None:
    given = prompts([3, 7, 1, 12])
    eos = served.model.config.eos_token_id
    with torch.no_grad():  # end-of-sequence often enough to occur, on both engines' weights
        served.model.get_input_embeddings().weight[eos] *= 3
    served.session.update_weights(1, served.model.named_parameters())
    done = sample(served.session, given, 16, max_new_tokens=60)
    assert {c.finish_reason for c in done.values()} == {"stop", "length"}, "both must occur, or the test shows nothing"
    for c in done.values():
        assert (c.token_ids[-1] == eos) == (c.finish_reason == "stop")
        assert eos not in list(c.token_ids)[:-1] and c.version == 1
        assert len(c.token_ids) == len(c.logprobs) == len(c.raw_logprobs) <= 60
        assert c.text == NumberTokenizer().decode(list(c.token_ids))
    assert served.ticks[-1] == (64, 64)


@pytest.mark.parametrize("params", [{}, {"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.8, "top_k": 50}, {"min_p": 0.5}])
def test_logprobs_are_those_of_the_model(served: SimpleNamespace, params: dict[str, Any]) -> None:
    given = prompts([3, 7, 1, 12])
    done = sample(served.session, given, 3, **params)
    assert largest_gap(served.model, given, done, params.get("temperature", 1.0)) < TOLERANCE
    for c in done.values():
        if "top_k" not in params and "min_p" not in params:
            assert list(c.logprobs) == list(c.raw_logprobs)
        else:  # mass was cut away, so what is left is more probable
            assert all(a > b for a, b in zip(c.logprobs, c.raw_logprobs, strict=True))


def test_weights_arrive_in_place_and_stale_ones_are_seen(served: SimpleNamespace) -> None:
    given = prompts([3, 7, 1, 12, 30])
    for version in (5, 6):
        shift(served.model)
        assert largest_gap(served.model, given, sample(served.session, given, 2)) > 0.05, "stale: the change must show"
        receipt = served.session.update_weights(version, served.model.named_parameters())
        sizes = [value.numel() * 4 for value in served.model.parameters()]
        assert (receipt.version, receipt.num_tensors, receipt.num_bytes) == (version, len(sizes), sum(sizes))
        done = sample(served.session, given, 2)
        assert largest_gap(served.model, given, done) < TOLERANCE
        assert {c.version for c in done.values()} == {version}


def test_weights_on_their_way_are_never_a_second_copy(served: SimpleNamespace) -> None:
    """vLLM makes one layer of queries, keys and values, and one of gate and up: it waits for three tensors at most."""
    alive: set[str] = set()
    together: list[int] = []

    def gathered() -> Iterator[tuple[str, torch.Tensor]]:
        for name, value in served.model.named_parameters():
            whole = value.detach().clone()  # as a sharded parameter is gathered
            alive.add(name)
            weakref.finalize(whole, alive.remove, name)
            together.append(len(alive))
            yield name, whole
            del whole

    served.session.update_weights(30, gathered())
    assert max(together) <= 3 < len(together) / 4 and not alive


def test_the_probe_scores_given_tokens_as_the_trainer_does(served: SimpleNamespace) -> None:
    sequences = [[2, 3, 4, 5], [9, 8], [7], list(range(2, 100))]
    got = served.session.logprobs(sequences)
    wanted = HFSampler().open(context(served.model)).logprobs([ids for ids in sequences if len(ids) > 1])
    assert [len(values) for values in got] == [len(ids) - 1 for ids in sequences]
    for ours, theirs in zip([values for values in got if len(values)], wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


def test_draws_do_not_depend_on_order_or_company(served: SimpleNamespace) -> None:
    given = prompts([3, 7, 1, 12, 5])
    whole = tokens_of(sample(served.session, given, 4))
    assert whole == tokens_of(sample(served.session, given[::-1], 4))
    alone = tokens_of(sample(served.session, [given[1]], 2))
    assert alone == {key: whole[key] for key in alone}
    assert whole != tokens_of(sample(served.session, given, 4, seed=1))
    assert len({tuple(ids) for ids in whole.values()}) == len(whole), "completions of a group must differ"


@pytest.mark.parametrize(
    "params", [{"temperature": 0.7}, {"top_p": 0.7}, {"top_k": 20}, {"min_p": 0.4}, {"temperature": 1.3, "top_p": 0.6}]
)
def test_first_tokens_follow_the_exact_distribution(served: SimpleNamespace, params: dict[str, Any]) -> None:
    if served.family == "olmo3":
        pytest.skip("the draw is the same code for every model")
    from delta_lightning.functional.sampling import warp_logits

    prompt, count = prompts([4])[0], 20_000
    with torch.no_grad():
        logits = served.model(input_ids=torch.tensor([prompt.token_ids])).logits[0, -1] / params.get("temperature", 1.0)
    cut = {name: value for name, value in params.items() if name != "temperature"}
    p = warp_logits(torch.log_softmax(logits, -1)[None], **cut)[0].exp().double()
    done = sample(served.session, [prompt], count, max_new_tokens=1, **params)
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in done.values()]), minlength=len(p)).double()
    assert float(counts[p == 0].sum()) == 0, "a token that was cut away was drawn"
    likely = count * p >= 5
    rest = torch.stack([counts[~likely].sum(), count * p[~likely].sum()])
    observed, expected = torch.cat([counts[likely], rest[:1]]), torch.cat([count * p[likely], rest[1:]])
    kept = expected > 0
    chi2 = float(((observed - expected) ** 2 / expected)[kept].sum())
    freedom = int(kept.sum()) - 1
    assert chi2 < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3  # 99.9 %, Wilson and Hilferty


def test_a_generator_that_is_closed_frees_its_requests(served: SimpleNamespace) -> None:
    running = served.session.generate(prompts([3, 5]), num_completions=8, params=SamplingParams(max_new_tokens=50), seed=0)
    next(running)
    with pytest.raises(RunError, match="updated while"):
        served.session.update_weights(9, served.model.named_parameters())
    with pytest.raises(RunError, match="sampled while"):
        sample(served.session, prompts([3]), 1)
    running.close()
    assert len(sample(served.session, prompts([3]), 2)) == 2


def test_prompts_that_cannot_be_completed_are_refused_by_name(served: SimpleNamespace) -> None:
    empty = Prompt(id="nothing", text="", token_ids=(), source="test", reference={})
    with pytest.raises(ConfigError, match="prompt nothing: wanted at least one token"):
        sample(served.session, [empty], 1)
    with pytest.raises(ConfigError, match="prompt p0: wanted at most 127 tokens"):
        sample(served.session, prompts([128]), 1)
    with pytest.raises(ConfigError, match=r"model\.sampling\.temperature: wanted at least 0.001 with vLLM"):
        sample(served.session, prompts([3]), 1, temperature=1e-6)
    with pytest.raises(ConfigError, match="stop_token_ids"):
        sample(served.session, prompts([3]), 1, stop_token_ids=(5000,))


def test_the_context_ends_completions(served: SimpleNamespace) -> None:
    [done] = sample(served.session, prompts([120]), 1, max_new_tokens=50, bad_token_ids=(served.eos,)).values()
    assert (len(done.token_ids), done.finish_reason) == (8, "length")


def test_stop_strings_end_a_completion_with_the_token_that_completes_them(served: SimpleNamespace) -> None:
    given = prompts([3, 7, 5])
    free = sample(served.session, given, 6, bad_token_ids=(served.eos,), max_new_tokens=30)
    wanted = " ".join(str(token) for token in list(free["p1", 2].token_ids)[4:6])  # NumberTokenizer writes numbers
    done = sample(served.session, given, 6, bad_token_ids=(served.eos,), max_new_tokens=30, stop=(wanted,))
    assert done["p1", 2].finish_reason == "stop" and list(done["p1", 2].token_ids) == list(free["p1", 2].token_ids)[:6]
    for key, completion in done.items():
        assert (wanted in completion.text) == (completion.finish_reason == "stop")
        assert list(completion.token_ids) == list(free[key].token_ids)[: len(completion.token_ids)]
    assert largest_gap(served.model, given, done) < TOLERANCE


def test_stop_tokens_and_banned_tokens(served: SimpleNamespace) -> None:
    given = prompts([3, 7, 5])
    first = tokens_of(sample(served.session, given, 8))
    stop = first["p0", 0][1]
    done = sample(served.session, given, 8, stop_token_ids=(stop,), max_new_tokens=40)
    assert all((c.token_ids[-1] in (stop, served.eos)) == (c.finish_reason == "stop") for c in done.values())
    assert list(done["p0", 0].token_ids) in (first["p0", 0][:1], first["p0", 0][:2])
    banned = tuple(range(2, 200))
    done = sample(served.session, given, 8, bad_token_ids=banned)
    assert not {token for c in done.values() for token in c.token_ids} & set(banned)
    assert largest_gap(served.model, given, done) < TOLERANCE
    assert all(a > b for c in done.values() for a, b in zip(c.logprobs, c.raw_logprobs, strict=True))


def test_parameters_that_do_not_arrive_are_named(served: SimpleNamespace) -> None:
    everything = list(served.model.named_parameters())
    with pytest.raises(RunError, match=f"{len(everything) - 1} of {len(everything)} parameters were not sent"):
        served.session.update_weights(20, everything[:1])
    served.session.update_weights(21, everything)
    given = prompts([3, 7])
    assert largest_gap(served.model, given, sample(served.session, given, 2)) < TOLERANCE


def test_the_process_is_left_as_it_was(served: SimpleNamespace) -> None:
    """The engine has been started for this test, and has sampled: what it changes must not reach the trainer."""
    before = served.before
    changed = {k for k in {*os.environ, *before.environment} if os.environ.get(k) != before.environment.get(k)}
    assert {name for name in changed if not name.startswith(("VLLM_", "PYTEST_", "_TORCHINDUCTOR"))} == set()
    assert torch.set_num_threads is before.set_num_threads
    assert served.after.precision == "high" and served.after.python == before.python
    assert torch.equal(served.after.torch, before.torch) and served.after.threads == before.threads
    again = model_of(served.family)  # the class of the body still builds models, and they still run and differentiate
    again(input_ids=torch.tensor([[2, 3, 4]])).logits.sum().backward()
    assert again.model.embed_tokens.weight.grad is not None


def test_a_head_width_that_vllm_has_no_kernel_for_is_refused() -> None:
    narrow = Tiny(hidden_size=32, heads=4, kv_heads=2, layers=1, context=64).load(LoadContext())
    with pytest.raises(ConfigError, match="width 8"):
        VLLMSampler().open(context(narrow))


def test_what_vllm_refuses_is_an_error_of_the_config() -> None:
    with pytest.raises(ConfigError, match=r"a model and options that vLLM can serve, got .*(cache|memory|GiB)"):
        VLLMSampler(cache_gib=1e-5).open(context(model_of("qwen3")))


def test_a_context_that_the_model_does_not_have_is_refused_in_vllms_words() -> None:
    with pytest.raises(ConfigError, match=r"can serve, got User-specified max_model_len \(999\) is greater than") as refused:
        VLLMSampler(context=999).open(context(model_of("qwen3")))
    assert "pydantic" not in str(refused.value)
