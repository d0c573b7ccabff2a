from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch

from delta_lightning.credit import Column, Normalise
from delta_lightning.errors import ConfigError, RunError
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import ThreadRank, View, run_ranks
from delta_lightning.testing.worlds import Scored, mixed
from delta_lightning.trainer.collate import Cut, collate, verdict_columns
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Completion, Prompt, Rollout, Status, Verdict
from support.reference_credit import mean_one
from support.token_rows import close, rows_of


def test_gives_the_verdicts_weights_and_obeys_the_laws() -> None:
    world = mixed()
    check_credit(Column())
    close(rows_of(Column().credit(View(world)).scale_BT, world), rows_of(world.batch.token_weights_BT, world), 0.0)


@pytest.mark.parametrize("scope", ["sequence", "batch"])
def test_normalised_by_the_wrapper(scope: Literal["sequence", "batch"]) -> None:
    part, world = Normalise(assigner=Column(), scope=scope), mixed()
    check_credit(part)
    wanted = mean_one(rows_of(world.batch.token_weights_BT, world), scope)
    close(rows_of(part.credit(View(world)).scale_BT, world), wanted, 1e-6)


def given(weights_BT: torch.Tensor | None) -> Scored:
    world = mixed()
    return replace(world, batch=replace(world.batch, token_weights_BT=weights_BT))


def test_without_weights() -> None:
    with pytest.raises(RunError, match=r"no verdict of this rollout step carries token_weights"):
        Column().credit(View(given(None)))
    world = given(None)
    assert torch.equal(Column(missing="uniform").credit(View(world)).scale_BT, world.batch.loss_mask_BT.float())


def test_negative_weights_are_refused() -> None:
    world = mixed()
    with pytest.raises(RunError, match=r"35 token weights are negative"):
        Column().credit(View(given(torch.full(world.logprobs_BT.shape, -2.0))))


def test_negative_weights_of_one_rank_stop_every_rank() -> None:
    """A rank that stopped alone would leave the others waiting in their next collective."""
    world = mixed()
    weights_BT = torch.ones(world.logprobs_BT.shape)
    weights_BT[1] = -1.0
    world = given(weights_BT)
    halves = [torch.arange(0, 12, 2), torch.arange(1, 12, 2)]
    wanted = int(world.batch.loss_mask_BT[1].sum())

    def work(rank: int, ranks: ThreadRank) -> bool:
        with pytest.raises(RunError, match=rf"{wanted} token weights are negative"):
            Column().credit(View(world.rows(halves[rank]), ranks=ranks))
        return True

    assert wanted > 0 and run_ranks(2, work) == [True, True]


def rollout(index: int, weights: list[float] | None) -> tuple[int, Rollout]:
    prompt = Prompt(id="p", text="", token_ids=(1, 2), source="t", reference={})
    completion = Completion(
        prompt_id="p", sample_index=index, token_ids=[3, 4, 5], text="", finish_reason="stop", version=0,
        logprobs=[-1.0] * 3, raw_logprobs=[-1.0] * 3,
    )  # fmt: skip
    return 0, Rollout(
        prompt=prompt, completion=completion, verdict=Verdict(status=Status.CORRECT, reward=1.0, token_weights=weights)
    )


def test_weights_come_from_verdicts() -> None:
    rollouts = [rollout(0, [0.5, 1.0, 2.0]), rollout(1, None)]
    cut = Cut(num_groups=1, updates=1, micro=1)
    batch, _ = collate(rollouts, cut=cut, completions=2, columns=verdict_columns(rollouts, Ranks()))
    assert batch.component_names == () and batch.token_weights_BT is not None
    rows = {int(s): batch.token_weights_BT[row, 2:5].tolist() for row, s in enumerate(batch.sequence_ids_B)}
    assert rows == {0: [0.5, 1.0, 2.0], 1: [1.0, 1.0, 1.0]}
    alone = [rollout(1, None)]
    assert collate(alone, cut=cut, completions=2, columns=verdict_columns(alone, Ranks()))[0].token_weights_BT is None


def test_weights_of_another_length_stop_the_run() -> None:
    rollouts = [rollout(0, [0.5, float("nan")])]
    with pytest.raises(RunError, match=r"prompt p: the verifier gave 2 token weights, 1 of them not finite, .* 3 tokens"):
        verdict_columns(rollouts, Ranks())


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"credit.Column.missing"):
        Column(missing="maybe")  # type: ignore[arg-type]
