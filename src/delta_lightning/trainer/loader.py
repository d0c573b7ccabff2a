"""The train loader: an epoch is one rollout step, an item one micro-batch.

Plain objects with a length: without one Lightning would fetch a batch ahead, and rollouts would be an update stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from delta_lightning.errors import ConfigError
from delta_lightning.trainer.ahead import Ahead
from delta_lightning.trainer.buffer import Buffer, MicroBatch
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Prompt


class RolloutLoader:
    """Makes a rollout step when an epoch begins and hands out its micro-batches.

    Args:
        make: (rollout step number, prompts drawn before it) -> buffer.
        updates: optimiser steps in a rollout step.
        micro: micro-batches in an optimiser step until the first buffer says how many it has.
        ahead: what is sampled ahead; its rollouts are part of the state.
        pace: told the micro-batches of an optimiser step whenever they change, before the first of them is handed out.
    """

    def __init__(
        self,
        make: Callable[[int, int], Buffer],
        *,
        updates: int,
        micro: int,
        ahead: Ahead | None = None,
        pace: Callable[[int], None] = lambda micro: None,
    ) -> None:
        self._make, self._updates, self._ahead, self._pace = make, updates, ahead or Ahead(), pace
        self.step, self.position, self.drawn, self.micro = 0, 0, 0, micro
        self.buffer: Buffer | None = None

    def __len__(self) -> int:
        return self._updates * self.micro

    def __iter__(self) -> Iterator[MicroBatch]:
        # Lightning stops at len() and may never run this generator to its end, so a used-up buffer is dropped here.
        if self.buffer is not None and self.position >= len(self):
            self.step, self.position, self.drawn, self.buffer = self.step + 1, 0, self.buffer.drawn, None
        if self.buffer is None:
            self.buffer, self.position = self._make(self.step, self.drawn), 0
            self._set(self.buffer.per_update)
        while self.position < len(self):
            self.position += 1
            yield self.buffer.micro_batch(self.position - 1)

    def _set(self, micro: int) -> None:
        if micro != self.micro:
            self.micro = micro
            self._pace(micro)

    def state(self, ranks: Ranks) -> dict[str, Any]:
        """Step, position, prompts drawn before the step; all ranks' buffers if the position is inside one. Collective.

        `micro` is the number of micro-batches per optimiser step in which Lightning's counters count, at a boundary that of the
        step before. With `ahead`, what was sampled of the next step that will be made; it is waited for.
        """
        ahead = self._ahead.state(self.step + (self.buffer is not None), ranks)
        more: dict[str, Any] = {"micro": self.micro} | ({} if ahead is None else {"ahead": ahead})
        if self.buffer is None or self.position >= len(self):
            drawn = self.drawn if self.buffer is None else self.buffer.drawn
            return {"step": self.step + (self.buffer is not None), "position": 0, "drawn": drawn, "buffers": None} | more
        buffers = ranks.all_objects(self.buffer.state())
        return {"step": self.step, "position": self.position, "drawn": self.drawn, "buffers": buffers} | more

    def restore(self, state: dict[str, Any], ranks: Ranks) -> None:
        """The inverse of `state`, in main memory. Raises `ConfigError` for a buffer of another number of ranks."""
        if "drawn" not in state:
            raise ConfigError(
                "ckpt_path", wanted="a checkpoint that counts the prompts drawn", got="one of an earlier version",
                remedy="Export its model and begin a new run from it.",
            )  # fmt: skip
        self.step, self.position, self.drawn, self.buffer = state["step"], state["position"], state["drawn"], None
        self._ahead.restore(state.get("ahead"), ranks)
        self._set(state.get("micro", self.micro))  # a checkpoint of an earlier version has as many as its config said
        buffers = state["buffers"]
        if buffers is None:
            return
        if len(buffers) != ranks.size:
            raise ConfigError(
                "ckpt_path", wanted=f"{len(buffers)} ranks, since this checkpoint lies inside a rollout step of as many",
                got=str(ranks.size), remedy="Resume on that number, or from a checkpoint at the end of a rollout step.",
            )  # fmt: skip
        self.buffer = Buffer.from_state(buffers[ranks.rank])


class PromptLoader:
    """Numbered held-out prompts in chunks: as many chunks on every rank, the prompts of a chunk shared out.

    Args:
        prompts: all of them, in order. chunk: prompts per chunk and rank. ranks: who shares.
    """

    def __init__(self, prompts: Sequence[Prompt], chunk: int, ranks: Ranks) -> None:
        self._numbered, self._chunk, self._ranks = list(enumerate(prompts)), chunk * ranks.size, ranks

    def __len__(self) -> int:
        return -(-len(self._numbered) // self._chunk)

    def __iter__(self) -> Iterator[list[tuple[int, Prompt]]]:
        for start in range(0, len(self._numbered), self._chunk):
            yield self._numbered[start : start + self._chunk][self._ranks.rank :: self._ranks.size]
