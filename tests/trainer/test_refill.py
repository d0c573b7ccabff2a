"""Dynamic sampling: dropped groups are replaced by the next prompts, bounded, counted, the same on any number of ranks."""

from __future__ import annotations

import pytest

from delta_lightning.data import Arithmetic
from delta_lightning.filters import ZeroVariance
from delta_lightning.trainer.buffer import Buffer
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Completion, Prompt, Status, Verdict
from support.models import tiny_model
from support.steps import StepSetup, make_buffer
from support.world import run_ranks


def two_of_three(prompt: Prompt, completion: Completion) -> Verdict:
    """Prompts p0, p3, p6, ... are hopeless: every answer is wrong. The others alternate."""
    hopeless = int(prompt.id[1:]) % 3 == 0
    right = not hopeless and completion.sample_index % 2 == 0
    return Verdict(status=Status.CORRECT if right else Status.INCORRECT, reward=float(right))


def never(prompt: Prompt, completion: Completion) -> Verdict:
    return Verdict(status=Status.INCORRECT, reward=0.0)


def rewards_by_sequence(judge: object, rounds: int) -> tuple[dict[int, tuple[float, list[int]]], dict[str, float]]:
    book = MetricBook()
    setup = StepSetup(judge=judge, filters=(ZeroVariance(),), refill_rounds=rounds)
    buffer: Buffer = make_buffer(tiny_model(), setup, book)
    batch = buffer.experience.batch
    trained = batch.loss_mask_BT
    rows = {
        int(s): (float(batch.rewards_B[row]), batch.token_ids_BT[row][trained[row]].tolist())
        for row, s in enumerate(batch.sequence_ids_B)
    }
    return rows, book.take(Ranks.current())


def test_without_refill_dropped_groups_are_masked() -> None:
    rows, metrics = rewards_by_sequence(two_of_three, 0)
    assert {key // 4 for key, (_, tokens) in rows.items() if not tokens} == {0, 3, 6}
    assert metrics["rollout/prompts_drawn"] == 8 and metrics["rollout/refill_rounds"] == 0


def test_dropped_groups_are_sampled_again_with_the_next_prompts() -> None:
    # p0, p3, p6 are dropped; p8, p9, p10 take their slots, p9 is dropped; p11 takes the last one.
    rows, metrics = rewards_by_sequence(two_of_three, 5)
    assert all(tokens for _, tokens in rows.values()) and len(rows) == 8 * 4
    assert metrics["rollout/prompts_drawn"] == 8 + 3 + 1 and metrics["rollout/refill_rounds"] == 2
    kept, _ = rewards_by_sequence(two_of_three, 0)
    for key, row in kept.items():
        if key // 4 not in (0, 3, 6):
            assert rows[key] == row, "a group that was kept must not move"
    # Every completion that was sampled counts: 4 of the 12 groups earned nothing, the others one half.
    assert metrics["reward/mean"] == pytest.approx(8 / 12 * 0.5)


def test_rounds_are_bounded() -> None:
    rows, metrics = rewards_by_sequence(never, 2)
    assert not any(tokens for _, tokens in rows.values())
    assert metrics["rollout/prompts_drawn"] == 24 and metrics["rollout/refill_rounds"] == 2


@pytest.mark.parametrize("size", [2, 4])
def test_any_number_of_ranks(size: int) -> None:
    want_rows, want = rewards_by_sequence(two_of_three, 5)
    parts = run_ranks(size, rewards_by_sequence, two_of_three, 5)
    assert {key: value for rows, _ in parts for key, value in rows.items()} == want_rows
    for _, metrics in parts:
        assert {k: metrics[k] for k in want if k.startswith(("rollout/prompts", "rollout/refill"))} == {
            k: want[k] for k in want if k.startswith(("rollout/prompts", "rollout/refill"))
        }


def stream_data(size: int) -> PromptData:
    data = PromptData(Arithmetic())
    data.train_prompts = [Prompt(id=str(n), text="", token_ids=(1,), source="t", reference={}) for n in range(size)]
    return data


def test_the_stream_is_that_of_whole_passes() -> None:
    data = stream_data(10)
    seen: list[list[str]] = []
    drawn = 0
    for _ in range(4):
        stream = data.stream(drawn, 4, seed=0)
        seen.append([prompt.id for prompt in stream.take(4)])
        drawn = stream.drawn
    assert drawn == 16 and len(set(seen[0] + seen[1])) == 8 and len(set(seen[2] + seen[3])) == 8
    assert seen[:2] != seen[2:], "every pass has its own order"
    again = data.stream(8, 4, seed=0)
    assert [prompt.id for prompt in again.take(4)] == seen[2], "a resumed run draws the same"


def test_a_step_never_sees_a_prompt_twice() -> None:
    data = stream_data(6)
    stream = data.stream(4, 3, seed=1)  # begins near the end of a pass and refills across it
    ids = [prompt.id for _ in range(4) for prompt in stream.take(3)]
    assert len(ids) == len(set(ids)) == 6, "all prompts once, then no more"
    assert stream.take(1) == []
