"""What is drawn from mixtures and filtered data: resumed anywhere, and on any number of ranks, the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delta_lightning.data import Arithmetic, Decontaminate, Mixture, PromptLength
from delta_lightning.errors import ConfigError, RunError
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.refill import share
from delta_lightning.verifiers.numeric import NumericVerifier
from support.world import run_ranks

SOURCES = {
    "short": Arithmetic(digits=1, num_train=20, num_held_out=4),
    "long": Arithmetic(digits=3, num_train=600, num_held_out=40),
}
WEIGHTS = {"short": 0.25, "long": 0.75}


def prepared(source: Any = None, **settings: Any) -> PromptData:
    source = source or Mixture(sources=SOURCES, weights=WEIGHTS)
    data = PromptData(source, **({"filters": [PromptLength(max_tokens=7)]} | settings))
    data.prepare(byte_tokenizer(), NumericVerifier(), Progress())
    return data


def steps(data: PromptData, first: int, last: int, drawn: int = 0, per_step: int = 8) -> tuple[list[list[str]], int]:
    """Ids of the prompts of some rollout steps, every second of which refills three groups."""
    ids: list[list[str]] = []
    for step in range(first, last):
        stream = data.stream(drawn, per_step, seed=5)
        prompts = stream.take(per_step) + (stream.take(3) if step % 2 else [])
        ids.append([prompt.id for prompt in prompts])
        drawn = stream.drawn
    return ids, drawn


@pytest.mark.parametrize("weights", [WEIGHTS, None])
@pytest.mark.parametrize("stop", [1, 4, 11])
def test_resumed_in_the_middle_of_a_pass(weights: dict[str, float] | None, stop: int) -> None:
    source = Mixture(sources=SOURCES, weights=weights)
    whole, end = steps(prepared(source), 0, 16)
    before, drawn = steps(prepared(source), 0, stop)
    after, again = steps(prepared(source), stop, 16, drawn)
    assert before + after == whole and again == end
    assert all(len(set(ids)) == len(ids) for ids in whole), "no prompt stands twice in a step"


def of_rank(steps_: int) -> tuple[list[list[tuple[int, str]]], dict[str, float]]:
    """The prompts of this rank with their groups, and the metrics."""
    data, ranks, book = prepared(), Ranks.current(), MetricBook()
    drawn, mine = 0, []
    for _ in range(steps_):
        stream = data.stream(drawn, 8, seed=5)
        mine.append([(group, prompt.id) for group, prompt in share(range(8), stream.take(8), ranks)])
        stream.observe(book)
        drawn = stream.drawn
    return mine, book.take(ranks)


@pytest.mark.parametrize("size", [2, 4])
def test_on_any_number_of_ranks(size: int) -> None:
    whole, metrics = of_rank(6)
    parts = run_ranks(size, of_rank, 6)
    for step, wanted in enumerate(whole):
        assert sorted(pair for mine, _ in parts for pair in mine[step]) == wanted
    assert all(values == metrics for _, values in parts)
    assert metrics == {"data/share/short": 0.25, "data/share/long": 0.75}


def test_shares_hold_over_passes() -> None:
    data = prepared()
    assert 60 < len(data.train_prompts) < 200, "the filter left something out"
    ids, _ = steps(data, 0, 40)
    names = Counter(identity.split("/")[0] for step in ids for identity in step)
    assert abs(names["short"] / sum(names.values()) - 0.25) < 0.02


def test_a_weight_that_a_data_set_cannot_fill_is_refused() -> None:
    prepared().check_shares(60)
    with pytest.raises(ConfigError, match=r"a weight of 'short' that its 20 prompts can fill.*of 400 prompts in a"):
        prepared().check_shares(400)


def test_filters_are_told_apart_in_the_fingerprint() -> None:
    one, other = prepared(), prepared(filters=[PromptLength(max_tokens=6)])
    state = {"fingerprint": one.fingerprint().state()}
    one.refuse_changed(state)
    with pytest.raises(ConfigError, match="first difference at prompt"):
        other.refuse_changed(state)
    prepared(filters=[PromptLength(max_tokens=6)], accept_changed=True).refuse_changed(state)


def test_reports_go_to_the_run_folder_once(tmp_path: Path) -> None:
    contaminated = Decontaminate(against={"exam": Arithmetic(digits=1, num_train=20, num_held_out=4)}, action="report")
    for stage in ("fit", "fit"):  # begun, and resumed
        data = prepared(Arithmetic(digits=1, num_train=20, num_held_out=4), filters=[contaminated])
        data.trainer = SimpleNamespace(default_root_dir=str(tmp_path), is_global_zero=True)  # type: ignore[assignment]
        data.setup(stage)
        assert len((tmp_path / "decontamination.jsonl").read_text(encoding="utf-8").splitlines()) == 20
    assert "20 of 20 training problems" in (tmp_path / "decontamination.md").read_text(encoding="utf-8")


def test_other_ranks_and_evaluation_write_nothing(tmp_path: Path) -> None:
    contaminated = Decontaminate(against={"exam": Arithmetic(digits=1, num_train=20, num_held_out=4)}, action="report")
    data = prepared(Arithmetic(digits=1, num_train=20, num_held_out=4), filters=[contaminated])
    for stage, zero in (("validate", True), ("fit", False)):
        data.trainer = SimpleNamespace(default_root_dir=str(tmp_path), is_global_zero=zero)  # type: ignore[assignment]
        data.setup(stage)
    assert list(tmp_path.iterdir()) == []


def test_demonstrations_leave_out_what_filters_leave_out() -> None:
    data = prepared()
    texts = [bytes(ids).decode() for ids, _ in data.demonstrations(Bytes())]
    assert len(texts) == len(data.train_prompts) and max(map(len, texts)) <= 7


class Bytes:
    """Encodes as UTF-8."""

    eos_token_id = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(text.encode())


def test_rows_that_are_all_left_out_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared()
    monkeypatch.setattr("delta_lightning.trainer.datamodule.GIVE_UP", 50)
    data.train_prompts = [None] * 100
    data.source = Arithmetic()
    with pytest.raises(RunError, match="50 rows of the data one after another were left out"):
        data.stream(0, 8, seed=0).take(8)
