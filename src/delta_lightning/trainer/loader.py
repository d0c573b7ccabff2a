"""The train loader: an epoch is one rollout step, an item one micro-batch.

A plain object with a length: without one Lightning would fetch a batch ahead, and rollouts would be an update stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from delta_lightning.trainer.buffer import Buffer, MicroBatch
from delta_lightning.trainer.ranks import Ranks


class RolloutLoader:
    """Makes a rollout step when an epoch begins and hands out its micro-batches.

    Args:
        make: rollout step number -> buffer.
        length: micro-batches in a rollout step.
    """

    def __init__(self, make: Callable[[int], Buffer], length: int) -> None:
        self._make, self._length = make, length
        self.step, self.position = 0, 0
        self.buffer: Buffer | None = None

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[MicroBatch]:
        # Lightning stops at len() and may never run this generator to its end, so a used-up buffer is dropped here.
        if self.buffer is not None and self.position >= self._length:
            self.step, self.position, self.buffer = self.step + 1, 0, None
        if self.buffer is None:
            self.buffer, self.position = self._make(self.step), 0
        while self.position < self._length:
            self.position += 1
            yield self.buffer.micro_batch(self.position - 1)

    def state(self, ranks: Ranks) -> dict[str, Any]:
        """Step and position, and the buffers of all ranks if the position is inside one. Collective."""
        if self.buffer is None or self.position >= self._length:
            return {"step": self.step + (self.buffer is not None), "position": 0, "buffers": None}
        return {"step": self.step, "position": self.position, "buffers": ranks.all_objects(self.buffer.state())}

    def restore(self, state: dict[str, Any], ranks: Ranks, device: torch.device) -> None:
        """The inverse of `state`. On another number of ranks the rest of a buffer is dropped."""
        self.step, self.position, self.buffer = state["step"], state["position"], None
        buffers = state["buffers"]
        if buffers is None:
            return
        if len(buffers) == ranks.size:
            self.buffer = Buffer.from_state(buffers[ranks.rank], device)
        else:
            self.step, self.position = self.step + 1, 0
