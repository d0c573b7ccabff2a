"""A replay gives what was recorded, on any number of ranks, and refuses whatever does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import SamplerSession
from delta_lightning.samplers import RecordedSampler, RecordingSampler
from support.models import tiny_model
from support.sampling import Done, context, prompts, sample

GIVEN = prompts([3, 5, 4])


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, list[Done]]:
    """Two versions, and held-out answers twice under the second, when the weights had changed; two ranks."""
    model, done = tiny_model(vocabulary=8), []
    part = RecordingSampler(path=str(tmp_path))
    first, second = (part.open(context(model, rank=rank, world_size=2)) for rank in (0, 1))
    for version in (0, 1):
        first.update_weights(version, [])
        second.update_weights(version, [])
        done.append(sample(first, GIVEN[:2], 4, seed=10 + version) | sample(second, GIVEN[2:], 4, seed=10 + version))
    for seed in (0, 1):
        model = tiny_model(vocabulary=8, seed=seed)
        first._inner._context = context(model)  # type: ignore[attr-defined]
        done.append(sample(first, GIVEN[:1], 2, seed=99, top_p=0.9))
    return tmp_path, done


def replay(path: Path, version: int = 0) -> SamplerSession:
    session = RecordedSampler(path=str(path)).open(context(tiny_model(vocabulary=8, seed=5)))
    session.update_weights(version, [])
    return session


def test_one_rank_replays_what_two_recorded(recorded: tuple[Path, list[Done]]) -> None:
    path, done = recorded
    session = replay(path, 1)
    assert sample(session, GIVEN[::-1], 4, seed=11) == done[1]
    assert session.update_weights(0, []).version == 0
    assert sample(session, GIVEN[1:2], 4, seed=10) == {key: c for key, c in done[0].items() if key[0] == "p1"}


def test_repeated_calls_come_in_the_order_of_the_recording(recorded: tuple[Path, list[Done]]) -> None:
    path, done = recorded
    session = replay(path, 1)
    assert done[2] != done[3]
    assert [sample(session, GIVEN[:1], 2, seed=99, top_p=0.9) for _ in range(2)] == done[2:]
    with pytest.raises(ConfigError, match="2, all played"):
        sample(session, GIVEN[:1], 2, seed=99, top_p=0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 7}, "version 7, seed 10, got none; it has 3 prompts, versions 0 to 1, 3 seeds"),
        ({"seed": 4}, "version 0, seed 4, got none"),
        ({"group": 8}, r"completions_per_prompt=4, as recorded, got 8"),
        ({"temperature": 0.5}, r"sampling\.temperature=1\.0, as recorded, got sampling\.temperature=0\.5"),
        ({"stop": ("x",)}, r"sampling\.stop=\[\], as recorded"),
        ({"prompt": replace(GIVEN[0], id="new")}, "prompt new"),
        ({"prompt": replace(GIVEN[0], token_ids=(2, 3, 5))}, "other tokens"),
    ],
)
def test_what_does_not_fit_is_refused(recorded: tuple[Path, list[Done]], changes: dict[str, Any], message: str) -> None:
    options = {"version": 0, "seed": 10, "group": 4, "prompt": GIVEN[0]} | changes
    session = replay(recorded[0], options.pop("version"))
    given, group, seed = [options.pop("prompt")], options.pop("group"), options.pop("seed")
    with pytest.raises(ConfigError, match=message):
        sample(session, given, group, seed, **options)


def test_a_refused_call_plays_nothing(recorded: tuple[Path, list[Done]]) -> None:
    path, done = recorded
    session = replay(path, 1)
    with pytest.raises(ConfigError):
        sample(session, [*GIVEN, replace(GIVEN[0], id="new")], 4, seed=11)
    assert sample(session, GIVEN, 4, seed=11) == done[1]


def test_another_vocabulary_and_an_empty_folder_are_refused(recorded: tuple[Path, list[Done]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a model with 16 tokens, got 8"):
        RecordedSampler(path=str(recorded[0])).open(context(tiny_model(vocabulary=16)))
    with pytest.raises(ConfigError, match="a folder with a recording"):
        RecordedSampler(path=str(tmp_path / "none"))


def test_progress_is_told_and_the_probe_is_the_present_models(recorded: tuple[Path, list[Done]]) -> None:
    ticks: list[tuple[int, int]] = []
    model = tiny_model(vocabulary=8)
    part = RecordedSampler(path=str(recorded[0]))
    session = part.open(context(model, tick=lambda done, total: ticks.append((done, total))))
    sample(session, GIVEN, 4, seed=10)
    assert ticks == [(done, 12) for done in range(1, 13)]
    assert session.logprobs([[2, 3, 4]])[0].shape == (2,)
    session.close()
