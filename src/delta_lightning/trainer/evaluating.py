"""The held-out evaluation of a policy: Lightning's validation hooks. `PolicyModule` brings engines, data and settings."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import lightning.pytorch as pl
import torch

from delta_lightning.trainer.ahead import Ahead
from delta_lightning.trainer.checks import HeldOut
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.rollouts import RolloutTools, collect, held_out_metrics, rollout_metrics
from delta_lightning.trainer.step import Plan
from delta_lightning.trainer.verdicts import VerdictPolicy, stop_if_broken
from delta_lightning.types import Prompt


class Evaluating(pl.LightningModule):
    """Samples and judges held-out prompts, a chunk at a time, with the same draws at every evaluation."""

    policy: Any
    plan: Plan
    held_out: HeldOut
    held_out_book: MetricBook
    verdicts: VerdictPolicy
    ahead: Ahead
    progress: Progress
    clock: PhaseClock

    @property
    @abstractmethod
    def data(self) -> PromptData:
        """The data module of the run."""

    @abstractmethod
    def tools(self) -> RolloutTools:
        """Engines of this rank, started at the first call."""

    @abstractmethod
    def sync(self, version: int, book: MetricBook) -> None:
        """Hand the policy's weights to the sampler."""

    def on_validation_epoch_start(self) -> None:
        """The sampler evaluates the weights of now, not those that began the rollout step."""
        self.ahead.settle(self.tools())  # one user of sampler and verifiers at a time
        self.policy.eval()
        loader = self.data.loader
        used = loader is not None and loader.buffer is not None and loader.position >= len(loader)
        self.sync(0 if loader is None else loader.step + used, self.held_out_book)

    @torch.no_grad()
    def validation_step(self, batch: list[tuple[int, Prompt]], batch_idx: int) -> None:
        """Sample and judge some held-out prompts."""
        self.policy.eval()
        tools = self.tools()
        self.progress.context("held out")
        params = self.held_out.sampling(self.plan.sampling)
        rollouts = collect(batch, tools, completions=self.held_out.completions, params=params, seed=self.plan.seed)
        stop_if_broken(rollouts, self.verdicts, tools.ranks)
        rollout_metrics(self.held_out_book, rollouts)

    def on_validation_epoch_end(self) -> None:
        """Log the held-out metrics, exact over all ranks. The sampler rests until the weights change hands again."""
        self.tools().session.rest()
        seconds = sum(self.clock.take().values())  # not part of the next rollout step
        self.log_dict(held_out_metrics(self.held_out_book.take(Ranks.current())) | {"held_out/seconds": seconds})
