"""Rollout steps with different numbers of micro-batches: every count of Lightning's is what it is with a fixed number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from delta_lightning.functional.random import stable_hash
from delta_lightning.interfaces import SamplerContext, SamplerSession
from delta_lightning.models import Packed, Padded, RowLayout
from delta_lightning.samplers import HFSampler
from delta_lightning.types import Completion, SamplingParams
from support.runs import UPDATES, module_of
from support.world import run_ranks

STEPS, BUDGET = 4, 50


@dataclass(frozen=True, kw_only=True)
class Uneven(HFSampler):
    """Completions of 1 to 16 tokens, fewer in some steps than in others."""

    def open(self, context: SamplerContext) -> SamplerSession:
        session = super().open(context)
        whole = session.generate

        def generate(prompts: Any, *, seed: int, **options: Any) -> Iterator[Completion]:
            for one in whole(prompts, seed=seed, **options):
                end = 1 + stable_hash(seed, one.prompt_id, one.sample_index) % (4 + seed % 13)
                text = context.tokenizer.decode(one.token_ids[:end], skip_special_tokens=True)
                yield replace(
                    one, token_ids=one.token_ids[:end], logprobs=one.logprobs[:end], raw_logprobs=one.raw_logprobs[:end],
                    text=text,
                )  # fmt: skip

        session.generate = generate  # type: ignore[method-assign]
        return session


@dataclass
class Seen(pl.Callback):
    """What the trainer says at every micro-batch, and when it evaluates."""

    micro: list[int] = field(default_factory=list)
    accumulate: list[int] = field(default_factory=list)
    last: list[bool] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    evaluated: list[int] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.accumulate.append(trainer.accumulate_grad_batches)
        self.last.append(trainer.is_last_batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.micro.append(trainer.accumulate_grad_batches)
        self.rates.append(float(trainer.callback_metrics["update/learning_rate"]))
        self.largest.append(float(trainer.callback_metrics["micro_batches/largest_tokens"]))
        assert trainer.num_training_batches == UPDATES * trainer.accumulate_grad_batches
        assert trainer.global_step == UPDATES * (trainer.current_epoch + 1)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.evaluated.append(trainer.global_step)


def fit(
    folder: Path | None = None,
    checkpoint: Path | None = None,
    budget: int | None = BUDGET,
    layout: RowLayout = Padded(),  # noqa: B008
    **options: Any,
) -> tuple[dict[str, torch.Tensor], Seen]:
    torch.set_num_threads(1)
    module, data = module_of(
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-3), tokens_per_micro_batch=budget, layout=layout,
        micro_batches=2,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, 1.0, 6),
        sampling=SamplingParams(max_new_tokens=16), sampler=Uneven(),
    )  # fmt: skip
    seen = Seen()
    saves = [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)] if folder else []
    trainer = pl.Trainer(
        **{
            "accelerator": "cpu", "devices": 1, "max_epochs": STEPS, "accumulate_grad_batches": 2, "callbacks": [seen, *saves],
            "logger": CSVLogger(folder, name="log") if folder else False, "enable_checkpointing": bool(folder),
            "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1,
            "check_val_every_n_epoch": 2, "limit_val_batches": 1,
        } | options
    )  # fmt: skip
    try:
        trainer.fit(module, data, ckpt_path=checkpoint)
    finally:
        module.close()
    assert trainer.global_step == STEPS * UPDATES
    return {name: value.clone() for name, value in module.policy.state_dict().items()}, seen


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], Seen, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return *fit(folder), folder


def test_every_count_is_that_of_a_fixed_number(uninterrupted: tuple[dict[str, torch.Tensor], Seen, Path]) -> None:
    values, seen, folder = uninterrupted
    assert len(set(seen.micro)) > 1, "the rollout steps must differ, or nothing is tested"
    assert seen.accumulate == [micro for micro in seen.micro for _ in range(UPDATES * micro)]
    assert [index for index, last in enumerate(seen.last) if last] == [
        sum(UPDATES * micro for micro in seen.micro[: step + 1]) - 1 for step in range(STEPS)
    ]
    fixed, other = fit(budget=None)
    assert (seen.rates, seen.evaluated) == (other.rates, other.evaluated) and seen.evaluated == [2 * UPDATES, 4 * UPDATES]
    assert other.micro == [2] * STEPS and max(seen.largest) <= BUDGET < max(other.largest)
    for name, value in fixed.items():
        assert float((values[name] - value).abs().max()) <= 1e-5 * float(value.abs().max()), name
    rows = (folder / "log" / "version_0" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    column = rows[0].split(",").index("step")
    steps = [int(row.split(",")[column]) for row in rows[1:]]
    assert sorted(set(steps)) == list(range(STEPS * UPDATES))


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("stop", [1, 2, 4, 5, 7])
def test_resume_is_bitwise(uninterrupted: tuple[dict[str, torch.Tensor], Seen, Path], stop: int) -> None:
    want, whole, folder = uninterrupted
    got, seen = fit(checkpoint=folder / f"step={stop}.ckpt")
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert seen.micro == whole.micro[-len(seen.micro) :] and seen.rates == whole.rates[-len(seen.rates) :]


def on_rank(layout: RowLayout) -> tuple[dict[str, torch.Tensor], list[int], list[int]]:
    values, seen = fit(devices=2, strategy="ddp", layout=layout, budget=28)
    return values, seen.micro, seen.accumulate


def test_two_ranks_have_equally_many(uninterrupted: tuple[dict[str, torch.Tensor], Seen, Path]) -> None:
    first, second = run_ranks(2, on_rank, Packed())
    assert first[1:] == second[1:] and len(set(first[1])) > 1
    for name, value in uninterrupted[0].items():
        assert float((first[0][name] - value).abs().max()) <= 1e-5 * float(value.abs().max()), name
