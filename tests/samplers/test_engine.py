"""Rows come and go, segments are joined, memory is kept to: the completions are those of the model in every case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from delta_lightning.samplers import segments
from delta_lightning.samplers.decoding import PLAIN_ATTENTION, single_query_attention
from delta_lightning.samplers.engine import MAX_SEGMENTS, Engine, Limits
from delta_lightning.samplers.rows import groups
from delta_lightning.samplers.stopping import Bans, StopRules
from delta_lightning.types import Completion, SamplingParams
from support.models import EOS, NumberTokenizer, tiny_model
from support.sampling import Done, assert_scores, prompts, tokens

LENGTHS = [3, 7, 1, 12, 5, 9, 2, 2, 6]
OTHERS = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 8}),  # no plain attention: transformers makes the masks
}


def model_of(family: str) -> Any:
    if family not in OTHERS:
        return tiny_model(family, vocabulary=16, num_hidden_layers=4)  # Olmo3: three layers see 8 positions, the fourth all
    config, model, changes = OTHERS[family]
    torch.manual_seed(0)
    return model(config(
        vocab_size=16, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, eos_token_id=EOS, pad_token_id=0, bos_token_id=None, **changes,
    )).eval()  # fmt: skip


def engine_of(model: Any, *, rows: int = 1000, columns: int = 10**6, **params: Any) -> Engine:
    """`columns`: what the memory holds, rows times columns."""
    options = SamplingParams(**params)
    engine = Engine(
        model, NumberTokenizer(), options, version=3, limits=Limits(rows=rows, cache_bytes=0),
        stops=StopRules(options, ends=[EOS], tokenizer=NumberTokenizer(), vocabulary=16),
        bans=Bans(options, tokenizer=NumberTokenizer(), vocabulary=16),
    )  # fmt: skip
    engine._most_columns()
    engine.limits = Limits(rows=rows, cache_bytes=columns * engine.column_bytes)
    return engine


@torch.no_grad()
def run(model: Any, engine: Engine, group: int = 4) -> Done:
    waiting = groups(prompts(LENGTHS), num_completions=group, params=engine.params, seed=0, context=256)
    with single_query_attention(model):
        done: list[Completion] = [one for step in engine.run(waiting) for one in step]
    assert engine.pieces == (model.config.model_type in PLAIN_ATTENTION)
    assert len(done) == len(LENGTHS) * group and not engine.lanes and not engine.waiting
    return {(c.prompt_id, c.sample_index): c for c in done}


@pytest.mark.parametrize("family", ["qwen3", "olmo3", *OTHERS])
def test_refilled_rows_are_scored_as_by_a_plain_forward_pass(family: str) -> None:
    """Sequences of up to 36 tokens, windows of 8, rows of all ages side by side."""
    model = model_of(family)
    engine = engine_of(model, rows=8, max_new_tokens=24)
    done = run(model, engine)
    assert engine.counts["steps"] > 24, "the second rows must have started while the first went on"
    assert {c.finish_reason for c in done.values()} == {"stop", "length"}
    assert_scores(model, prompts(LENGTHS), done)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments grow by a few columns, so that short sequences run out of them."""
    monkeypatch.setattr(segments, "LEAST_GROWTH", 4)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("family", ["qwen3", "olmo3", "mistral"])
def test_limits_change_how_rows_are_batched_and_nothing_else(family: str) -> None:
    model = model_of(family)
    free = engine_of(model, max_new_tokens=24)
    whole = run(model, free)
    assert free.counts["requeued"] == 0 and free.counts["steps"] == 23
    few, tight = engine_of(model, rows=5, max_new_tokens=24), engine_of(model, columns=300, max_new_tokens=24)
    alone = engine_of(model, rows=1, columns=1, max_new_tokens=24)  # a row is decoded whatever the limits say
    for engine in (few, tight, alone):
        assert tokens(run(model, engine)) == tokens(whole)
    assert tight.counts["requeued"] > 0


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize(("family", "least_lanes"), [("qwen3", 2), ("mistral", 1)])
def test_memory_is_kept_to(family: str, least_lanes: int) -> None:
    model = model_of(family)
    engine = engine_of(model, columns=300, max_new_tokens=24)
    most, lanes = 0, 0
    make_room = engine._make_room

    def watched() -> None:
        nonlocal most, lanes
        make_room()
        most = max(most, sum(lane.segment.size * lane.segment.capacity for lane in engine.lanes))
        lanes = max(lanes, len(engine.lanes))

    engine._make_room = watched  # type: ignore[method-assign]
    run(model, engine)
    assert 200 < most <= 300 * 8 / 7 + 1, "rows that have ended stay until an eighth of them has"
    assert least_lanes <= lanes <= (MAX_SEGMENTS if least_lanes > 1 else 1)


def test_a_group_larger_than_the_limit_starts_in_parts() -> None:
    model = model_of("qwen3")
    whole = run(model, engine_of(model, max_new_tokens=6))
    assert tokens(run(model, engine_of(model, rows=3, max_new_tokens=6))) == tokens(whole)


def test_every_position_gives_control_back() -> None:
    model = model_of("qwen3")
    engine = engine_of(model, max_new_tokens=10, bad_token_ids=(EOS,))
    waiting = groups(prompts(LENGTHS), num_completions=2, params=engine.params, seed=0, context=256)
    with torch.no_grad():
        assert [len(step) for step in engine.run(waiting)] == [0] * 9 + [18]
