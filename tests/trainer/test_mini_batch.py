"""What an optimiser step knows of its mini-batch: the weighting's mask first, then the loss's statistics, then totals."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import lightning.pytorch as pl
import pytest
import torch

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Uniform
from delta_lightning.data.arithmetic import Arithmetic
from delta_lightning.interfaces import PolicyLoss, TokenWeighting
from delta_lightning.losses import ClipCov, ClippedSurrogate, Constant, EntropyTopKDynamic, KLCov, TokenMean
from delta_lightning.models.tiny import Tiny
from delta_lightning.samplers import HFSampler
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.trainer.observe import observe_statistics
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.step import Parts, mini_batch_statistics
from delta_lightning.trainer.view import RolloutView
from delta_lightning.types import Experience, SamplingParams, Statistics, with_mask
from support.models import tiny_model
from support.odd import OddSum
from support.steps import StepSetup, make_buffer
from support.world import run_ranks


def numbers(statistics: Statistics | None) -> dict[str, float]:
    assert statistics is not None
    return {name: float(value) for name, value in statistics.values.items()}


def test_the_loss_counts_the_tokens_that_the_weighting_left() -> None:
    """KL-Cov's means and its share are of trained tokens: what the entropy selection dropped is in none of them."""
    setup = StepSetup(updates=1)
    model = tiny_model(dtype=torch.float64)
    buffer = make_buffer(model, setup)
    parts = replace(setup.parts(), weighting=EntropyTopKDynamic(share=0.3), loss=KLCov(ratio=0.5))
    alone = replace(setup.parts(), loss=KLCov(ratio=0.5))

    def statistics(parts: Parts, experience: Experience) -> tuple[Statistics | None, Statistics | None]:
        view = RolloutView(
            experience.batch, micro=buffer.micro, scorer=setup.scorer(model), needs=parts.update_needs(), cache=HiddenCache(),
            ranks=Ranks(), seed=(0, 0),
        )  # fmt: skip
        found = mini_batch_statistics(experience, view, parts)
        assert torch.equal(view.batch.loss_mask_BT, experience.batch.loss_mask_BT), "the view that was given stays as it is"
        return found

    weighting, loss = statistics(parts, buffer.experience)
    assert weighting is not None and weighting.keep_BT is not None
    left = replace(buffer.experience, batch=with_mask(buffer.experience.batch, weighting.keep_BT))
    assert numbers(loss) == pytest.approx(numbers(statistics(alone, left)[1]), rel=1e-9)
    assert numbers(loss) != pytest.approx(numbers(statistics(alone, buffer.experience)[1]), rel=1e-3)


def test_bounds_that_exclude_everything_are_no_metrics() -> None:
    book = MetricBook()
    infinite = {"bound": torch.tensor(float("-inf")), "dropped": torch.tensor(0.0), "seed": torch.tensor(7)}
    observe_statistics(book, (Statistics(values=infinite), None))
    assert book.take(Ranks()) == {"update/weighting/dropped": 0.0}


@lru_cache
def trained(weighting: TokenWeighting, loss: PolicyLoss, micro: int = 1, devices: int = 1) -> dict[str, torch.Tensor]:
    """Parameters after a rollout step of two updates under Lightning."""
    torch.set_num_threads(1)
    module = PolicyModule(
        backbone=Tiny(hidden_size=16, layers=2, heads=2, kv_heads=1, intermediate_size=32, seed=0), sampler=HFSampler(),
        verifier=OddSum(), advantage=GroupStandardised(), credit=Uniform(), loss=loss, weighting=weighting,
        reduction=TokenMean(), correction=NoCorrection(), optimizer=lambda params: torch.optim.SGD(params, lr=0.3),
        sampling=SamplingParams(max_new_tokens=8), prompts_per_step=8, completions_per_prompt=4, updates_per_step=2,
        micro_batches=micro, max_grad_norm=0.0,
    )  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_epochs=1,
        accumulate_grad_batches=micro, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    try:
        trainer.fit(module, PromptData(source=Arithmetic(num_train=20, num_held_out=4)))
    finally:
        module.close()
    return {name: value.clone() for name, value in module.policy.state_dict().items()}


MASK = (EntropyTopKDynamic(share=0.5), KLCov(ratio=0.2))
OBJECTIVES = {"weights": (ClipCov(share=0.2, low=0.1), ClippedSurrogate()), "mask and loss": MASK}


def distance(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> float:
    return max(float((got[name] - want[name]).abs().max() / want[name].abs().max()) for name in want)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_do_not_change_a_run(name: str) -> None:
    """Statistics, the mask that shrinks and its totals, through Lightning's own loop."""
    want = trained(*OBJECTIVES[name])
    assert distance(want, trained(Constant(), ClippedSurrogate())) > 1e-4, "the statistics do nothing here"
    assert distance(trained(*OBJECTIVES[name], micro=3), want) < 1e-5


def test_ranks_do_not_change_a_run() -> None:
    for got in run_ranks(2, trained, *MASK, 2, 2):
        assert distance(got, trained(*MASK)) < 1e-5
