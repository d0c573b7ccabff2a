"""The loader: one rollout step per epoch, never a step twice, its state at a boundary and inside a buffer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.trainer.loader import RolloutLoader
from delta_lightning.trainer.ranks import Ranks


@dataclass
class Numbers:
    """A buffer double: micro-batch k of step s is 10 s + k."""

    step: int
    before: int = 0
    per_update: int = 3

    @property
    def drawn(self) -> int:
        return self.before + 5

    def micro_batch(self, index: int) -> int:
        return 10 * self.step + index

    def state(self) -> dict[str, int]:
        return {"step": self.step}


def loader() -> RolloutLoader:
    return RolloutLoader(Numbers, updates=1, micro=3)  # type: ignore[arg-type]


def test_an_epoch_is_one_rollout_step_even_if_its_generator_never_ends() -> None:
    one = loader()
    for step in range(3):
        epoch = iter(one)
        assert [next(epoch) for _ in range(len(one))] == [10 * step, 10 * step + 1, 10 * step + 2]


def test_nothing_is_made_before_it_is_asked_for() -> None:
    made: list[int] = []

    def make(step: int, drawn: int) -> Any:
        made.append(step)
        return Numbers(step, drawn)

    one = RolloutLoader(make, updates=1, micro=3)
    epoch = iter(one)
    assert made == []
    assert [next(epoch) for _ in range(3)] == [0, 1, 2]
    assert made == [0], "a rollout made before the last update of the step before would be stale"


def test_state_at_a_boundary_is_small_and_names_the_next_step() -> None:
    one = loader()
    epoch = iter(one)
    assert one.state(Ranks()) == {"step": 0, "position": 0, "drawn": 0, "buffers": None, "micro": 3}
    for _ in range(3):
        next(epoch)
    assert one.state(Ranks()) == {"step": 1, "position": 0, "drawn": 5, "buffers": None, "micro": 3}
    other = loader()
    other.restore(one.state(Ranks()), Ranks())
    assert next(iter(other)) == 10


def test_a_checkpoint_of_an_earlier_version_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"got one of an earlier version"):
        loader().restore({"step": 1, "position": 0, "buffers": None}, Ranks())


def test_a_buffer_of_another_number_of_ranks_is_refused() -> None:
    one = loader()
    next(iter(one))
    state = one.state(Ranks())
    assert state["position"] == 1 and state["buffers"] == [{"step": 0}]
    with pytest.raises(ConfigError, match=r"wanted 1 ranks, .* got 2\. Resume on that number"):
        loader().restore(state, Ranks(0, 2))


def test_steps_of_different_sizes_say_so_before_their_first_micro_batch() -> None:
    said: list[int] = []

    def make(step: int, drawn: int) -> Any:
        return Numbers(step, drawn, per_update=1 + step % 3)

    one = RolloutLoader(make, updates=2, micro=1, pace=said.append)
    for step in range(4):
        epoch = iter(one)
        first = next(epoch)
        assert len(one) == 2 * (1 + step % 3) and said == [2, 3, 1][:step]
        assert [first, *epoch] == [10 * step + index for index in range(len(one))]
    other = RolloutLoader(make, updates=2, micro=1, pace=said.append)
    iter(one)
    other.restore(one.state(Ranks()) | {"micro": 3}, Ranks())
    assert said == [2, 3, 1, 3] and len(other) == 6
