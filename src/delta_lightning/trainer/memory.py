"""Out of memory: told apart from other errors, answered once with smaller micro-batches, and explained."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch

from delta_lightning.errors import DeltaError, RunError
from delta_lightning.models.in_step import OutOfStep
from delta_lightning.models.layout import RowLayout
from delta_lightning.trainer.batching import fewest, slices
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import RolloutBatch

Result = TypeVar("Result")

# What the allocators of a CPU, of CUDA and of its libraries say where torch raises a plain RuntimeError.
PHRASES = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


SAMPLING = (
    "With HFSampler set a smaller --model.sampler.cache_gib (keys and values) or --model.sampler.max_rows (completions decoded "
    "at a time), or fewer --model.sampling.max_new_tokens; under fsdp2 it needs the whole model on every device. VLLMSampler "
    "has processes and memory of its own"
)


class OutOfMemory(RunError):  # noqa: N818 -- named like torch's
    """A pass that did not fit.

    Args:
        doing: what the pass was for. reason: what the allocator said. remedy: what to set.
        agreed: raised on every rank, at the same place.
    """

    def __init__(self, doing: str, reason: str, remedy: str, *, agreed: bool) -> None:
        self.doing, self.reason, self.remedy, self.agreed = doing, reason, remedy, agreed
        super().__init__(f"out of memory while {doing} ({reason}). {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.doing, self.reason, self.remedy, self.agreed)


def _rebuild(doing: str, reason: str, remedy: str, agreed: bool) -> OutOfMemory:
    return OutOfMemory(doing, reason, remedy, agreed=agreed)


class Sizes(NamedTuple):
    """Costs in the layout's unit: of the largest micro-batch, and of the costliest row by itself; 0 where none is known."""

    largest: int = 0
    row: int = 0


def micro_batches(doing: str, sizes: Sizes) -> tuple[str, str]:
    """What was done in micro-batches of these sizes, and what to set where they did not fit."""
    largest, row = sizes
    others = (
        "--model.activation_checkpointing=true (updates), --trainer.strategy=fsdp2 over more devices or a smaller "
        "--model.cache.device_gib"
    )
    fewer = "fewer --model.sampling.max_new_tokens"
    if not largest:
        return doing, f"Try {others}, or {fewer}"
    done = f"{doing}, in micro-batches of up to {largest:,} tokens"
    if row >= largest:
        return done, f"One sequence alone takes as many, so smaller micro-batches do not help. Try {fewer}, {others}"
    smaller = f"Set --model.tokens_per_micro_batch={max(row, largest // 2)}"
    return done, f"{smaller} or less; if micro-batches are as small as they get, {others}, or {fewer}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator had too little to give."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return (
        isinstance(error, RuntimeError)
        and not isinstance(error, DeltaError)
        and any(phrase in str(error) for phrase in PHRASES)
    )


@contextmanager
def bounded(told: Callable[[], tuple[str, str]], ranks: Ranks | None = None) -> Iterator[None]:
    """Turns what an allocator raises inside into `OutOfMemory`.

    Args:
        told: what was done, and what to set; asked when it is written.
        ranks: those that run the block, each its own share, and come out of it together whatever happens to one of them: at
            its end all of them raise, or none. None: this rank alone raises, and it ends the run.
    """
    reason, together = None, ranks is not None
    try:
        yield
    except OutOfStep as error:
        reason, together = _said(error), False  # the others wait for it in the middle of the model
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = _said(error)
    if reason is not None:
        free()
    ranks = ranks if ranks is not None and together else Ranks()
    reasons = ranks.all_objects(reason)
    failed = [(rank, text) for rank, text in enumerate(reasons) if text is not None]
    if failed:
        rank, text = failed[0]
        doing, remedy = ranks.all_objects(told())[rank]
        raise OutOfMemory(doing, f"rank {rank}: {text}" if len(reasons) > 1 else text, remedy, agreed=together)


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def sampling() -> AbstractContextManager[None]:
    """`bounded` around a sampler, on this rank."""
    return bounded(lambda: ("sampling", SAMPLING))


def free() -> None:
    """Gives back what a failed pass has left in caches."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class MicroBudget:
    """The largest cost of a micro-batch, halved once in a run when scoring runs out of memory.

    Args:
        tokens: in the layout's unit; None where the config sets none.
    """

    def __init__(self, tokens: int | None) -> None:
        self.tokens, self.halved = tokens, False
        self._configured, self._sizes, self._said = tokens, Sizes(), False

    def of(self, cut: Cut) -> Cut:
        """The cut of the next rollout step."""
        return replace(cut, budget=self.tokens)

    def scored(
        self,
        score: Callable[[RolloutBatch, list[slice]], Result],
        batch: RolloutBatch,
        micro: list[slice],
        cut: Cut,
        ranks: Ranks,
        say: Callable[[str], None],
    ) -> tuple[Result, list[slice]]:
        """`score(batch, micro)` and its micro-batches; if it runs out of memory, once in a run, again in smaller ones.

        The rollouts are the same; only their order on this rank changes. Collective.

        Raises:
            OutOfMemory: it did not fit again, or the ranks cannot begin again together.
        """
        largest = self._measured(batch, micro, cut, ranks)
        if self.tokens is not None and largest > self.tokens and not self._said:
            self._said = True
            say(
                f"one sequence takes {largest:,} tokens, more than --model.tokens_per_micro_batch={self.tokens}; micro-batches "
                "of its rollout step may cost as much (said once; see micro_batches/largest_tokens)"
            )
        try:
            return score(batch, micro), micro
        except OutOfMemory as error:
            if self.halved or not error.agreed:
                raise
            reason = error.reason
        free()
        self.tokens, self.halved = max(1, min(largest, self.tokens or largest) // 2), True
        batch, micro = recut(batch, micro, self.of(cut), ranks)
        self._measured(batch, micro, cut, ranks)
        say(
            f"out of memory while scoring micro-batches of up to {largest:,} tokens ({reason}); trying once more with "
            f"{len(micro) // cut.updates} per update, and from now on with --model.tokens_per_micro_batch={self.tokens}"
        )
        return score(batch, micro), micro

    def _measured(self, batch: RolloutBatch, micro: Sequence[slice], cut: Cut, ranks: Ranks) -> int:
        largest, row = zip(*ranks.all_objects(sizes_of(batch, micro, cut.layout)), strict=True)
        self._sizes = Sizes(max(largest), max(row))
        return self._sizes.largest

    def explained(self, doing: str) -> AbstractContextManager[None]:
        """Turns what an allocator raises inside into `OutOfMemory`, on the rank where it was raised."""
        return bounded(lambda: micro_batches(doing, self._sizes))

    def state_dict(self) -> dict[str, Any]:
        """The budget as it is, and what the config said, for a checkpoint."""
        return {"configured": self._configured, "tokens": self.tokens, "halved": self.halved}

    def load_state_dict(self, state: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """Go on with a checkpoint's budget, unless the config has been given another one since."""
        if state["configured"] == self._configured:
            self.tokens, self.halved = state["tokens"], state["halved"]
        elif state["halved"]:
            say(
                f"the run had gone on with --model.tokens_per_micro_batch={state['tokens']} after it ran out of memory; the "
                f"config has been changed since, and {self._configured} holds"
            )


def sizes_of(batch: RolloutBatch, micro: Sequence[slice], layout: RowLayout) -> Sizes:
    """Those of this rank."""
    lengths = batch.attention_mask_BT.sum(1).tolist()
    return Sizes(
        largest=max((layout.cost(lengths[part]) for part in micro), default=0),
        row=max((layout.cost([length]) for length in lengths), default=0),
    )


def recut(batch: RolloutBatch, micro: Sequence[slice], cut: Cut, ranks: Ranks) -> tuple[RolloutBatch, list[slice]]:
    """The rows of each optimiser step in as many micro-batches as the budget needs, equally many everywhere. Collective."""
    lengths, per = batch.attention_mask_BT.sum(1).tolist(), len(micro) // cut.updates
    spans = [range(micro[first].start, micro[first + per - 1].stop) for first in range(0, len(micro), per)]
    needed = per if cut.budget is None else max(fewest([lengths[row] for row in s], cut.layout, cut.budget) for s in spans)
    count = max([per, *ranks.all_objects(needed)])
    parts = [[span[row] for row in part] for span in spans for part in cut.layout.cut([lengths[row] for row in span], count)]
    order = torch.tensor([row for part in parts for row in part], dtype=torch.int64, device=batch.token_ids_BT.device)
    return batch.rows(order), slices(parts)
