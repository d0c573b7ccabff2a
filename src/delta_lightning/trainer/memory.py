"""Out of memory: told apart from other errors, answered once with smaller micro-batches, and explained."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch

from delta_lightning.errors import DeltaError, RunError
from delta_lightning.trainer.batching import fewest, slices
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import RolloutBatch

Result = TypeVar("Result")

# What the allocators of a CPU, of CUDA and of its libraries say where torch raises a plain RuntimeError.
PHRASES = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


class OutOfMemory(RunError):  # noqa: N818 -- named like torch's
    """A pass that did not fit.

    Args:
        doing: what the pass was for. reason: what the allocator said.
        largest: cost of the largest micro-batch, in the layout's unit; 0 where none is known.
        agreed: raised on every rank, at the same place.
    """

    def __init__(self, doing: str, reason: str, *, largest: int, agreed: bool) -> None:
        self.doing, self.reason, self.largest, self.agreed = doing, reason, largest, agreed
        size = f", in micro-batches of up to {largest:,} tokens" if largest else ""
        budget = f"Set --model.tokens_per_micro_batch={max(1, largest // 2)} or less; if"
        first = f"{budget} micro-batches are as small as they get, " if largest else "Try "
        super().__init__(
            f"out of memory while {doing}{size} ({reason}). {first}--model.activation_checkpointing=true, "
            "--trainer.strategy=fsdp2 over more devices, a smaller "
            "--model.cache.device_gib or fewer --model.sampling.max_new_tokens"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.doing, self.reason, self.largest, self.agreed)


def _rebuild(doing: str, reason: str, largest: int, agreed: bool) -> OutOfMemory:
    return OutOfMemory(doing, reason, largest=largest, agreed=agreed)


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
def bounded(doing: str, largest: Callable[[], int], ranks: Ranks, *, apart: bool) -> Iterator[None]:
    """Turns what an allocator raises inside into `OutOfMemory`.

    Args:
        doing, largest: for the message; asked when it is written. ranks: those that run the block, each its own share.
        apart: they run no collective inside, so one that failed can still meet the others: at the end of the block all of them
            raise, or none. Otherwise the others wait for it in the middle of the model, and it ends the run.
    """
    reason: str | None = None
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
    if reason is not None:
        free()
    reasons = ranks.all_objects(reason) if apart else [reason]
    failed = [(rank, text) for rank, text in enumerate(reasons) if text is not None]
    if failed:
        rank, text = failed[0]
        raise OutOfMemory(doing, f"rank {rank}: {text}" if len(reasons) > 1 else text, largest=largest(), agreed=apart)


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
        self._largest, self._said = 0, False

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
        self._largest = largest = max(ranks.all_objects(largest_cost(batch, micro, cut)))
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
        self._largest = max(ranks.all_objects(largest_cost(batch, micro, cut)))
        say(
            f"out of memory while scoring micro-batches of up to {largest:,} tokens ({reason}); trying once more with "
            f"{len(micro) // cut.updates} per update, and from now on with --model.tokens_per_micro_batch={self.tokens}"
        )
        return score(batch, micro), micro

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turns what an allocator raises inside into `OutOfMemory`, on the rank where it was raised."""
        with bounded(doing, lambda: self._largest, Ranks(), apart=False):
            yield


def largest_cost(batch: RolloutBatch, micro: Sequence[slice], cut: Cut) -> int:
    """What the costliest micro-batch of this rank costs, in the layout's unit."""
    lengths = batch.attention_mask_BT.sum(1).tolist()
    return max((cut.layout.cost(lengths[part]) for part in micro), default=0)


def recut(batch: RolloutBatch, micro: Sequence[slice], cut: Cut, ranks: Ranks) -> tuple[RolloutBatch, list[slice]]:
    """The rows of each optimiser step in as many micro-batches as the budget needs, equally many everywhere. Collective."""
    lengths, per = batch.attention_mask_BT.sum(1).tolist(), len(micro) // cut.updates
    spans = [range(micro[first].start, micro[first + per - 1].stop) for first in range(0, len(micro), per)]
    needed = per if cut.budget is None else max(fewest([lengths[row] for row in s], cut.layout, cut.budget) for s in spans)
    count = max([per, *ranks.all_objects(needed)])
    parts = [[span[row] for row in part] for span in spans for part in cut.layout.cut([lengths[row] for row in span], count)]
    order = torch.tensor([row for part in parts for row in part], dtype=torch.int64, device=batch.token_ids_BT.device)
    return batch.rows(order), slices(parts)
