"""How many micro-batches Lightning's loops expect of a rollout step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl

from delta_lightning.trainer.ahead import Ahead
from delta_lightning.trainer.buffer import Buffer
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.loader import RolloutLoader


def paced_loader(trainer: pl.Trainer, make: Callable[[int, int], Buffer], cut: Cut, ahead: Ahead) -> RolloutLoader:
    """The loader of the run's rollout steps, which tells the trainer how many micro-batches each has."""
    return RolloutLoader(make, updates=cut.updates, micro=cut.micro, ahead=ahead, pace=partial(set_pace, trainer, cut.updates))


def set_pace(trainer: pl.Trainer, updates: int, micro: int) -> None:
    """From now on an epoch has `updates` optimiser steps of `micro` micro-batches each, and all counters agree.

    Called when a rollout step has been made, before its first micro-batch is handed out, or when a checkpoint is restored:
    never between two micro-batches of an optimiser step. Lightning reads these numbers when it fetches a batch and at the end
    of each, so an epoch may have its own. It counts optimiser steps, and `updates` of them end each epoch whatever `micro` is.
    """
    loop: Any = trainer.fit_loop
    trainer.accumulate_grad_batches = micro
    if loop._combined_loader is None:
        return  # it will ask the loader for its length
    length = updates * micro
    loop._combined_loader.limits[:] = [length]  # in place: the iterator that is under way has the same list
    loop._data_fetcher.length = length  # tells the last batch
    loop.max_batches = length
    if trainer.val_check_batch not in (None, float("inf")) and trainer.val_check_interval == 1.0:
        trainer.val_check_batch = length
