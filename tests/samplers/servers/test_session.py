"""Sampling from servers: one law with all samplers, work shared out, and every fault named; against doubles of vLLM servers."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.interfaces import SamplerSession
from delta_lightning.samplers import VLLMServerSampler
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.weight_check import WeightCheck, WeightProof
from delta_lightning.types import SamplingParams
from support.generate_server import Nursery, Running, nursery
from support.models import NumberTokenizer, tiny_model
from support.prompts import number_prompts, train
from support.sampling import assert_scores, context, sample, tokens
from support.weight_server import until

LIMITS = {"silence_seconds": 60.0, "answer_seconds": 30.0, "update_seconds": 60.0}  # no double that is well reaches one
HANGS = {"silence_seconds": 4.0, "answer_seconds": 4.0}  # of tests that wait for one


@pytest.fixture(scope="module")
def serve() -> Iterator[Nursery]:
    with nursery() as started:
        yield started


@pytest.fixture(scope="module")
def lasting(serve: Nursery) -> list[Running]:
    """Two doubles that outlive a test, which mends what it broke."""
    return [serve(tiny_model(), NumberTokenizer()) for _ in range(2)]


@pytest.fixture
def pair(lasting: list[Running]) -> Iterator[list[Running]]:
    yield lasting
    for one in lasting:
        one.mend()


@contextmanager
def session_on(
    *servers: Running, model: Any = None, lines: list[str] | None = None, **options: Any
) -> Iterator[SamplerSession]:
    sampler = VLLMServerSampler(servers=[one.url for one in servers], **(LIMITS | options))
    say = (lines if lines is not None else []).append
    session = sampler.open(context(model if model is not None else tiny_model(), say=say))
    try:
        yield session
    finally:
        session.close()


# One law -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0.7}, {"top_p": 0.8, "top_k": 20, "min_p": 0.02}, {"bad_token_ids": (5, 6)}]
)
def test_completions_are_of_the_model_with_the_version_and_both_log_probabilities(pair: list[Running], params: Any) -> None:
    model = tiny_model()
    with session_on(*pair, model=model) as session:
        session.update_weights(7, model.named_parameters())
        done = sample(session, number_prompts(), 4, **params)
        assert len(done) == 24
        assert {completion.version for completion in done.values()} == {7}
        assert_scores(model, number_prompts(), done, temperature=params.get("temperature", 1.0))
        gap = max(a - b for c in done.values() for a, b in zip(c.logprobs, c.raw_logprobs, strict=True))
        assert (gap > 0.01) == bool(params.keys() & {"top_p", "bad_token_ids"})
        assert all(5 not in c.token_ids for c in done.values()) or "bad_token_ids" not in params
        assert all(one.stats()["mass"] == {} for one in pair), "what was kept is fetched once, and forgotten"


def test_a_completion_does_not_depend_on_the_server_or_the_order(pair: list[Running]) -> None:
    with session_on(*pair) as both, session_on(pair[1]) as alone:
        both.update_weights(0, tiny_model().named_parameters())
        first = sample(both, number_prompts(), 4)
        alone.update_weights(0, tiny_model().named_parameters())
        assert tokens(sample(alone, number_prompts()[::-1], 4)) == tokens(first)
        assert tokens(sample(alone, number_prompts(), 4, seed=1)) != tokens(first)


def test_work_goes_to_all_servers_and_no_more_at_a_time_than_they_decode(pair: list[Running]) -> None:
    for one in pair:
        one.set(delay=0.3)
    before = [one.stats()["served"] for one in pair]
    with session_on(*pair) as session:
        sample(session, number_prompts(), 8)
    served = [one.stats()["served"] - count for one, count in zip(pair, before, strict=True)]
    assert sum(served) == 48 and min(served) >= 8
    assert all(one.stats()["most"] == 4 for one in pair)


def test_stop_strings_end_completions_where_they_are_complete(pair: list[Running]) -> None:
    """The draws are those without stop strings, cut behind the token that completes one."""
    with session_on(*pair) as session:
        whole = sample(session, number_prompts(), 4, max_new_tokens=24)
        text = sorted(whole.values(), key=lambda c: -len(c.token_ids))[0].text.split()[5]
        done = sample(session, number_prompts(), 4, max_new_tokens=24, stop=(f" {text} ", f" {text}"))
    assert any(len(done[key].token_ids) < len(whole[key].token_ids) for key in whole)
    for key, completion in done.items():
        count = len(completion.token_ids)
        assert list(whole[key].token_ids)[:count] == list(completion.token_ids)
        assert list(completion.logprobs) == list(whole[key].logprobs)[:count]
        ended = f" {text}" in completion.text
        assert completion.finish_reason == ("stop" if ended else whole[key].finish_reason)
        assert ended or count == len(whole[key].token_ids)


def test_closing_the_generator_drops_what_is_in_flight(pair: list[Running]) -> None:
    for one in pair:
        one.set(delay=0.3)
    before = sum(one.stats()["aborted"] for one in pair)
    with session_on(*pair) as session:
        given = session.generate(number_prompts(), num_completions=8, params=SamplingParams(max_new_tokens=4), seed=0)
        next(given)
        with pytest.raises(RunError, match="cannot be updated while completions are being sampled"):
            session.update_weights(1, ())
        given.close()
        until(lambda: sum(one.stats()["aborted"] for one in pair) > before, 60)
        until(lambda: not any(one.stats()["running"] for one in pair), 60)
        assert len(sample(session, number_prompts(2), 2)) == 4, "and the session goes on"
    with pytest.raises(RunError, match="closed"):
        session.logprobs([[2, 3]])


def test_progress_is_ticked(pair: list[Running]) -> None:
    ticks: list[tuple[int, int]] = []
    sampler = VLLMServerSampler(servers=[one.url for one in pair])
    session = sampler.open(context(tiny_model(), tick=lambda done, total: ticks.append((done, total))))
    sample(session, number_prompts(), 2)
    session.close()
    assert (12, 12) in ticks and {total for _, total in ticks} == {12}


def test_a_tick_that_raises_ends_the_call_and_the_requests(pair: list[Running]) -> None:
    def tick(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for one in pair:
        one.set(delay=0.2)
    session = VLLMServerSampler(servers=[one.url for one in pair]).open(context(tiny_model(), tick=tick))
    with pytest.raises(KeyboardInterrupt):
        sample(session, number_prompts(), 8)
    session.close()


def test_bad_input_is_refused_at_once(pair: list[Running]) -> None:
    unknown = [replace(number_prompts(1)[0], token_ids=(2, 64))]
    with session_on(*pair) as session:
        for params, prompts, message in (
            (SamplingParams(), unknown, "token ids from 0 to 63, the model's vocabulary, got 64"),
            (SamplingParams(temperature=1e-4), number_prompts(1), "temperature"),
            (SamplingParams(stop_token_ids=(64,)), number_prompts(1), "stop_token_ids"),
            (SamplingParams(), number_prompts(1) * 2, "two of them"),
        ):
            with pytest.raises(ConfigError, match=message):
                session.generate(prompts, num_completions=1, params=params, seed=0)
        room = tiny_model().config.max_position_embeddings
        with pytest.raises(ConfigError, match=f"room for the {room} tokens of a probe and one more, got {room}"):
            session.logprobs([[2] * room])


def test_updates_reach_every_server_and_are_proved_on_each(pair: list[Running]) -> None:
    model = tiny_model()
    with session_on(*pair, model=model) as session:
        proof, book = WeightProof(WeightCheck(), number_prompts(), 256), MetricBook()
        for version in range(3):
            proof.deliver(session, version, model, book)
            proof.probe(session, version, model, book)
            assert set(session.logprobs_by_engine([[2, 3, 4]])) == {one.url for one in pair}
            train(model)
        labels = {one.stats()["label"] for one in pair}
        assert len(labels) == 1 and labels.pop().endswith("/2")


def test_ranks_meet_before_an_update(pair: list[Running]) -> None:
    model, labels = tiny_model(), list[str]()

    def share(value: Any) -> list[Any]:
        labels.append(pair[0].stats()["label"])
        return [value]

    session = VLLMServerSampler(servers=[pair[0].url], **LIMITS).open(context(model, share=share))
    labels.clear()
    session.update_weights(1, model.named_parameters())
    session.close()
    assert [label[-2:] for label in labels] == ["/0", "/1"], "what another rank still samples would be dropped"


# Faults while sampling -----------------------------------------------------------------------------------------------

DEADLY = "a server killed"  # the other faults leave a double that can be mended

FAULTS = {
    DEADLY: ({"fault": "die", "after": 2}, "closed the connection without an answer|reset by peer|refused"),
    "a server that hangs": ({"fault": "hang", "after": 2}, "it hangs: 4 requests in flight, no token in"),
    "errors": (
        {"fault": "error", "after": 2},
        "failures in a row, the last of them: HTTP 500: .*EngineCore encountered an issue",
    ),
    "no JSON": ({"fault": "no JSON"}, "failures in a row, the last of them: no JSON in its answer: .*nothing here"),
    "no tokens": ({"fault": "no choice"}, "the last of them: 0 tokens where 1 to 12|ended with None"),
    "other log-probabilities": ({"fault": "too few logprobs"}, "the last of them: log-probabilities of .* tokens beside"),
    "aborted": ({"fault": "abort"}, "the last of them: a completion that ended with 'abort'"),
    "another version": ({"fault": "another version", "after": 2}, "stale: it samples from weights other/7 where .*/0 was sent"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_server_is_named_and_its_requests_are_answered_by_another(
    serve: Nursery, pair: list[Running], name: str
) -> None:
    settings, message = FAULTS[name]
    bad, lines = serve(tiny_model(), NumberTokenizer()) if name == DEADLY else pair[0], list[str]()
    with session_on(bad, pair[1], lines=lines, retries=0, **(HANGS if settings["fault"] == "hang" else {})) as session:
        expected = tokens(sample(session, number_prompts(), 4))
        assert lines == []
        bad.set(**settings)
        pair[1].set(delay=0.02)  # so that the bad one gets its share
        assert tokens(sample(session, number_prompts(), 4)) == expected
        [line] = lines
        assert line.startswith(f"vLLM server {bad.url} is lost: ")
        assert re.search(message, line), line
        assert tokens(sample(session, number_prompts(), 4)) == expected, "it stays aside"


@pytest.mark.parametrize("name", [DEADLY, "a server that hangs", "errors", "another version"])
def test_the_run_ends_with_the_reason_when_no_server_is_left(serve: Nursery, pair: list[Running], name: str) -> None:
    settings, message = FAULTS[name]
    bad = serve(tiny_model(), NumberTokenizer()) if name == DEADLY else pair[0]
    with session_on(bad, **HANGS) as session:
        bad.set(**settings)
        with pytest.raises(RunError, match=f"no vLLM server is left: {bad.url}: .*({message})"):
            sample(session, number_prompts(), 4)


def test_a_process_that_stands_still_is_a_server_that_hangs(serve: Nursery, pair: list[Running]) -> None:
    bad, lines = serve(tiny_model(), NumberTokenizer(), delay=0.2), list[str]()
    with session_on(bad, pair[0], lines=lines, **HANGS) as session:
        given = session.generate(number_prompts(), num_completions=4, params=SamplingParams(max_new_tokens=4), seed=0)
        first = next(given)
        bad.signal(signal.SIGSTOP)
        assert len([first, *given]) == 24
        assert "it hangs: " in lines[0] and "silent for 4 s, and no completion in" in lines[0], lines


def test_a_failure_now_and_then_is_forgiven(pair: list[Running]) -> None:
    lines: list[str] = []
    with session_on(*pair, lines=lines) as session:
        expected = tokens(sample(session, number_prompts(), 4))
        pair[0].set(fault="error", after=3, times=2)
        assert tokens(sample(session, number_prompts(), 4)) == expected
    assert lines == []


def test_weights_that_diverged_end_the_run_and_blame_no_server(pair: list[Running]) -> None:
    with session_on(*pair) as session:
        pair[0].set(fault="not finite")
        with pytest.raises(RunError, match="logits are not finite in a completion; its weights may have diverged"):
            sample(session, number_prompts(), 4)


def test_a_reader_that_pauses_is_no_server_that_hangs(pair: list[Running]) -> None:
    lines: list[str] = []
    with session_on(*pair, lines=lines, silence_seconds=3.0) as session:
        given = session.generate(number_prompts(), num_completions=4, params=SamplingParams(max_new_tokens=4), seed=0)
        first = next(given)
        time.sleep(4.5)
        assert len([first, *given]) == 24 and lines == []


def test_an_engine_in_a_long_step_is_waited_for(pair: list[Running]) -> None:
    with session_on(pair[0], answer_seconds=4.0, retries=0) as session:
        pair[0].set(busy=6.0)
        for params in ({"top_k": 4}, {"stop": (" ",)}):
            assert len(sample(session, number_prompts(1), 4, **params)) == 4


def test_a_server_that_is_well_again_comes_back_with_the_next_update(pair: list[Running]) -> None:
    lines: list[str] = []
    with session_on(*pair, lines=lines, retries=0) as session:
        pair[0].set(fault="error")
        sample(session, number_prompts(), 4)
        pair[0].mend()
        before = pair[0].stats()["served"]
        sample(session, number_prompts(), 4)
        assert pair[0].stats()["served"] == before, "not before the update: its weights may be old"
        session.update_weights(1, tiny_model().named_parameters())
        sample(session, number_prompts(), 4)
        assert pair[0].stats()["served"] > before
    assert lines[-1] == f"vLLM server {pair[0].url} is back" and len(lines) == 2


# Faults of weights ---------------------------------------------------------------------------------------------------

WEIGHT_FAULTS = {
    "stale weights": ({"fault": "stale"}, {}, "still serves stale weights"),
    "half of the parameters": ({"fault": "half"}, {}, "did not arrive, or arrived in another's place"),
    "two layers swapped": ({"fault": "swapped"}, {}, "arrived in another's place"),
    "a tied head forgotten": ({}, {"forget_head": True}, "Some parameters did not arrive"),
    "another dtype": ({}, {"dtype": "bfloat16"}, "looks like another dtype"),
}


@pytest.mark.parametrize("name", WEIGHT_FAULTS)
def test_weights_that_do_not_arrive_on_one_of_two_servers_are_caught(serve: Nursery, pair: list[Running], name: str) -> None:
    later, from_the_start, message = WEIGHT_FAULTS[name]
    bad, model = serve(tiny_model(), NumberTokenizer(), **from_the_start) if from_the_start else pair[1], tiny_model()
    good = [] if "dtype" in from_the_start else [pair[0]]  # servers of two dtypes are refused at once
    with session_on(*good, bad, model=model) as session:
        proof, book = WeightProof(WeightCheck(), number_prompts(), 256), MetricBook()

        def two_updates() -> None:
            for version in range(2):
                proof.deliver(session, version, model, book)
                proof.probe(session, version, model, book)
                bad.set(**later)
                train(model)

        with pytest.raises(RunError, match=f"the sampler {bad.url}'s log-prob.*{message}"):
            two_updates()


def test_weights_that_are_not_received_whole_are_named_by_the_receipt(serve: Nursery, pair: list[Running]) -> None:
    bad, lines, model = pair[1], list[str](), tiny_model()
    with session_on(bad, pair[0], model=model, lines=lines) as session:
        bad.set(fault="loses weights")
        session.update_weights(1, model.named_parameters())
        assert f"vLLM server {bad.url} is lost: it did not take the weights of version 1: " in lines[0]
        assert "1 of 24 parameters did not arrive, the first of them model.norm.weight" in lines[0]
        assert len(sample(session, number_prompts(), 2)) == 12


def test_a_server_that_is_gone_when_weights_are_sent(serve: Nursery, pair: list[Running]) -> None:
    bad, lines, model = serve(tiny_model(), NumberTokenizer()), list[str](), tiny_model()
    with session_on(bad, pair[0], model=model, lines=lines) as session:
        bad.signal(signal.SIGKILL)
        receipt = session.update_weights(1, iter(model.named_parameters()))
        assert receipt.num_tensors == len(list(model.named_parameters())) and receipt.version == 1
        assert "Connection refused" in lines[0] or "reset" in lines[0]
        pair[0].set(fault="loses weights")
        rest = iter(model.named_parameters())
        with pytest.raises(RunError, match="no vLLM server is left: "):
            session.update_weights(2, rest)
        assert next(rest, None) is None, "other ranks gather them too: all are read, come what may"


def test_parameters_that_the_trainer_forgets_are_named(pair: list[Running]) -> None:
    model = tiny_model()
    with (
        session_on(pair[0], model=model) as session,
        pytest.raises(RunError, match=r"of version 1: 1 of 24 parameters were not sent, the first of them model\.norm\.weight"),
    ):
        session.update_weights(1, list(model.named_parameters())[:-1])


# Opening -------------------------------------------------------------------------------------------------------------


def test_a_server_of_another_model_is_refused(pair: list[Running]) -> None:
    for model, message in (
        (tiny_model(vocabulary=80), "vocabulary of 80, got 64"),
        (tiny_model(num_hidden_layers=3), "num_hidden_layers 3, got 2"),
    ):
        with pytest.raises(ConfigError, match=message), session_on(pair[0], model=model):
            pass


def test_a_server_with_another_tokenizer_is_refused(pair: list[Running]) -> None:
    pair[0].set(tokenizer="another")
    with pytest.raises(ConfigError, match="the tokenizer of the run, which reads tokens"), session_on(pair[0]):
        pass
    pair[0].set(tokenizer=False)  # one without a tokenizer is given tokens only
    with session_on(pair[0]):
        pass


def test_servers_of_two_dtypes_are_refused(serve: Nursery, pair: list[Running]) -> None:
    half = serve(tiny_model(), NumberTokenizer(), dtype="bfloat16")
    with pytest.raises(ConfigError, match="servers of one dtype, got bfloat16, float32"), session_on(pair[0], half):
        pass


def test_two_runs_on_one_server_do_not_sample_each_others_weights(pair: list[Running]) -> None:
    with session_on(pair[0]) as mine, session_on(pair[0]):
        assert isinstance(mine.logprobs([[2, 3]])[0], torch.Tensor)
        with pytest.raises(RunError, match="stale: it samples from weights"):
            sample(mine, number_prompts(), 1)
