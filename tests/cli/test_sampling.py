"""Options of sampling from YAML and flags: what they do to a run, what is said of them, and what is refused."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from delta_lightning.models.tokenizer import NUM_SPECIAL
from delta_lightning.samplers.tape import Call, calls
from support.cli import Invoke, Outcome

OPTIONS = {
    "temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.01, "stop": ["a", "zz"], "stop_token_ids": [7],
    "bad_words": ["e"], "bad_token_ids": [9, 10], "max_new_tokens": 12,
}  # fmt: skip

Recorded = Callable[..., tuple[Outcome, list[Call]]]


@pytest.fixture
def recorded(invoke: Invoke, tmp_path: Path) -> Recorded:
    """A run's outcome and what it sampled."""

    def run(name: str, *args: str) -> tuple[Outcome, list[Call]]:
        sampler = ("--model.sampler=RecordingSampler", f"--model.sampler.path={tmp_path / name}")
        done = invoke(*args, *sampler, "--model.completions_per_prompt=8", f"--run_dir={tmp_path / 'runs' / name}")
        assert done.code == 0, done.err
        return done, list(calls(tmp_path / name / "rank_0.jsonl.gz"))

    return run


def test_every_option_from_yaml(recorded: Recorded, tmp_path: Path) -> None:
    """The tiny model's tokens are bytes: token = byte + 2."""
    config = tmp_path / "options.yaml"
    config.write_text(yaml.safe_dump({"model": {"sampling": {k: v for k, v in OPTIONS.items() if k != "max_new_tokens"}}}))
    done, made = recorded("tape", f"--config={config}", f"--model.sampling.max_new_tokens={OPTIONS['max_new_tokens']}")
    assert made[1].params == OPTIONS, "between the evaluations before and after it"
    assert "top_p=0.95, top_k=40, min_p=0.01, bad_words=('e',), bad_token_ids=(9, 10): tokens come from a part" in done.err
    trained = made[1].completions()
    assert len(trained) == 32
    ends, never = {1, 7, ord("a") + NUM_SPECIAL}, {9, 10, ord("e") + NUM_SPECIAL}
    for completion in trained:
        ids = list(completion.token_ids)
        assert not never & set(ids) and not ends & set(ids[:-1]) and len(ids) <= 12
        assert completion.finish_reason == ("stop" if ids[-1] in ends else "length")
        assert all(s > r - 1e-6 for s, r in zip(completion.logprobs, completion.raw_logprobs, strict=True))
    assert any(c.logprobs[0] > c.raw_logprobs[0] + 1e-3 for c in trained), "the cuts take away a part of the mass"


def test_the_scorer_has_the_temperature_of_the_sampler(recorded: Recorded, tmp_path: Path) -> None:
    for temperature in (0.5, 1.7):
        recorded(f"t{temperature}", f"--model.sampling.temperature={temperature}", "--model.sampling.top_p=0.8")
        with (tmp_path / "runs" / f"t{temperature}" / "metrics.csv").open(newline="", encoding="utf-8") as file:
            gaps = [float(row["mismatch/max_abs_nats"]) for row in csv.DictReader(file) if row["mismatch/max_abs_nats"]]
        assert len(gaps) == 1 and gaps[0] < 1e-4


def test_the_seed_is_that_of_every_draw(recorded: Recorded) -> None:
    def tokens(name: str, seed: int) -> list[tuple[str, int, list[int]]]:
        backbone = "--model.backbone.seed=0"  # the same weights, whatever the run's seed
        _, made = recorded(name, f"--model.seed={seed}", backbone, "--data.shuffle=false")
        return sorted((c.prompt_id, c.sample_index, list(c.token_ids)) for c in made[1].completions())

    first, other = tokens("first", 3), tokens("other", 4)
    assert tokens("again", 3) == first
    assert [key[:2] for key in first] == [key[:2] for key in other] and first != other


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("temperature=0", "model.sampling.temperature: wanted more than 0"),
        ("max_new_tokens=0", "model.sampling.max_new_tokens: wanted at least 1, got 0"),
        ("max_new_tokens=1.5", "max_new_tokens"),
        ("min_p=1", "model.sampling.min_p"),
        ("stop=</answer>", "model.sampling.stop"),
        ("stop=['']", "model.sampling.stop: wanted a list of strings that are not empty"),
        (
            "stop_token_ids=[258]",
            "model.sampling.stop_token_ids: wanted token ids from 0 to 257, the model's vocabulary, got [258]",
        ),
        ("bad_token_ids=[-1]", "model.sampling.bad_token_ids: wanted token ids from 0"),
        (
            "bad_token_ids=[300]",
            "model.sampling.bad_token_ids: wanted token ids from 0 to 257, the model's vocabulary, got [300]",
        ),
        (f"bad_token_ids={list(range(258))}", "model.sampling.bad_token_ids: wanted fewer than the vocabulary's 258"),
    ],
)
def test_what_cannot_be_sampled_is_refused(invoke: Invoke, flag: str, said: str) -> None:
    done = invoke(f"--model.sampling.{flag}")
    assert done.code == 2 and said in done.err and "Traceback" not in done.err, done.err
