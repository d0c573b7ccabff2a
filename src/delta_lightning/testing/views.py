"""A `StepView` in memory, on one rank or on several ranks that are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from delta_lightning.functional.random import keyed_uniform, stable_hash
from delta_lightning.testing.worlds import VOCABULARY, WIDTH, Scored
from delta_lightning.types import Need, RolloutBatch, TokenScores

T = TypeVar("T")
EVERYTHING = frozenset(Need)


class Collectives(Protocol):
    """What a view needs of the ranks."""

    def all_sum(self, value: Tensor) -> Tensor:
        """Sum over ranks."""
        ...

    def all_rows(self, value: Tensor) -> list[Tensor]:
        """One tensor per rank."""
        ...


class OneRank:
    """No other ranks."""

    def all_sum(self, value: Tensor) -> Tensor:
        """Sum over ranks."""
        return value

    def all_rows(self, value: Tensor) -> list[Tensor]:
        """One tensor per rank."""
        return [value]


class FixedHead:
    """A fixed random LM head."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.weight_VD = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(
            dtype
        )

    def logits(self, hidden_ND: Tensor, vocabulary: slice = slice(None)) -> Tensor:
        """[N, D] -> [N, V], or some columns of it."""
        return hidden_ND @ self.weight_VD[vocabulary].T


@dataclass
class View:
    """`interfaces.StepView` of `world`, cut into `cuts` (one slice of all rows by default), with what `needs` names."""

    world: Scored
    cuts: Sequence[slice] | None = None
    ranks: Collectives = field(default_factory=OneRank)
    step: int = 0
    needs: frozenset[Need] = EVERYTHING

    @property
    def batch(self) -> RolloutBatch:
        """The rows of this rank."""
        return self.world.batch

    @property
    def advantages(self) -> Tensor | None:
        """[B] or [B, T]."""
        return self.world.advantages

    def passes(self) -> Iterator[tuple[slice, TokenScores]]:
        """Scores, cut by cut."""
        for rows in self.cuts or [slice(0, self.batch.num_sequences)]:
            if rows.start < rows.stop:
                yield rows, only(self.world.scores(rows), self.needs)

    def all_sum(self, value: Tensor) -> Tensor:
        """Sum over ranks."""
        return self.ranks.all_sum(value)

    def gather(self, value_N: Tensor) -> Tensor:
        """All ranks, in the global order."""
        keys = torch.cat(self.ranks.all_rows(self._keys_N()))
        return torch.cat(self.ranks.all_rows(value_N))[keys.argsort()]

    def own(self, value_N: Tensor) -> Tensor:
        """This rank out of the global order."""
        keys = torch.cat(self.ranks.all_rows(self._keys_N())).sort().values
        return value_N[torch.searchsorted(keys, self._keys_N())]

    def _keys_N(self) -> Tensor:
        rows_B, columns_T = self.batch.sequence_ids_B, torch.arange(self.batch.token_ids_BT.shape[1])
        return ((rows_B[:, None] << 32) + columns_T)[self.batch.loss_mask_BT]

    def uniform(self, purpose: str) -> Tensor:
        """Keyed by purpose, sequence id and position."""
        return keyed_uniform(self.batch.sequence_ids_B ^ stable_hash(purpose), torch.arange(self.batch.token_ids_BT.shape[1]))

    def head(self) -> AbstractContextManager[FixedHead]:
        """A fixed head."""
        if Need.HEAD not in self.needs:
            raise AssertionError("the LM head was not asked for")
        return nullcontext(FixedHead(self.world.hidden_BTD.dtype))


def only(scores: TokenScores, needs: frozenset[Need]) -> TokenScores:
    """What the step would have computed for a part that declares `needs`."""
    return replace(
        scores,
        entropies_BT=scores.entropies_BT if Need.ENTROPY in needs else None,
        hidden_ND=scores.hidden_ND if Need.HIDDEN in needs else None,
        sum_p_squared_BT=scores.sum_p_squared_BT if Need.SUM_P_SQUARED in needs else None,
        reference_logprobs_BT=scores.reference_logprobs_BT if Need.REFERENCE in needs else None,
    )


class ThreadRank:
    """One of several ranks in one process. Ranks that differ in the number, the kind or the shapes of collectives fail."""

    def __init__(self, rank: int, slots: list[tuple[str, Tensor] | None], barrier: threading.Barrier) -> None:
        self.rank, self.slots, self.barrier = rank, slots, barrier
        self.calls = 0  # collectives so far, the one at the end included

    def all_sum(self, value: Tensor) -> Tensor:
        """Sum over ranks."""
        return torch.stack(self._exchange("all_sum", value, value.shape)).sum(0)

    def all_rows(self, value: Tensor) -> list[Tensor]:
        """One tensor per rank."""
        return self._exchange("all_rows", value, value.shape[1:])

    def leave(self) -> None:
        """The last collective: a rank that is not leaving too is caught here instead of waiting for ever."""
        self._exchange("the end", torch.zeros(0), ())

    def _exchange(self, kind: str, value: Tensor, shape: Sequence[int]) -> list[Tensor]:
        """Each rank's value, if all ranks are in the same collective with the same dtype and `shape`."""
        self.calls += 1
        self.slots[self.rank] = f"{kind} of {value.dtype} {tuple(shape)}", value.clone()
        self.barrier.wait(timeout=20)
        parts = [part for part in self.slots if part is not None]
        self.barrier.wait(timeout=20)
        if len({what for what, _ in parts}) > 1:
            raise AssertionError(f"ranks disagree: {[what for what, _ in parts]}")
        return [part for _, part in parts]


def run_ranks(size: int, work: Callable[[int, ThreadRank], T]) -> list[T]:
    """`work(rank, collectives)` on `size` threads; raises the first error of any of them."""
    barrier = threading.Barrier(size)
    slots: list[tuple[str, Tensor] | None] = [None] * size
    ranks = [ThreadRank(rank, slots, barrier) for rank in range(size)]
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(rank, ranks[rank])
            ranks[rank].leave()
        except Exception as error:  # noqa: BLE001 - kept, and raised below in the calling thread
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    real = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
    if real:
        raise real[0]
    assert not errors, f"collectives per rank: {[rank.calls for rank in ranks]}"
    return [results[rank] for rank in range(size)]


def rows_of_rank(world: Scored, rank: int, size: int) -> Tensor:
    """Row numbers of the groups that `rank` owns."""
    return torch.nonzero(world.batch.group_ids_B % size == rank)[:, 0]
