"""Data-parallel ranks: the only file that calls `torch.distributed`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """Rank and number of data-parallel ranks, with the collectives that the step needs, and flags."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """Those of the default process group, or one rank if there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def all_sum(self, value: Tensor) -> Tensor:
        """Elementwise sum over ranks; the input is left alone."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def all_rows(self, value: Tensor) -> list[Tensor]:
        """One tensor per rank, lengths of dimension 0 free."""
        if self.size == 1:
            return [value]
        lengths = torch.zeros(self.size, dtype=torch.int64, device=value.device)
        lengths[self.rank] = len(value)
        dist.all_reduce(lengths)
        longest = int(lengths.max())
        padded = value.new_zeros(longest, *value.shape[1:])
        padded[: len(value)] = value
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return [part[:length] for part, length in zip(parts, lengths.tolist(), strict=True)]

    def all_objects(self, value: Item) -> list[Item]:
        """One picklable object per rank, on every rank."""
        if self.size == 1:
            return [value]
        parts: list[Item] = [value] * self.size
        dist.all_gather_object(parts, value)
        return parts

    def raise_flag(self, name: str) -> None:
        """Lets every rank that asks know; for good. Not collective."""
        if self.size > 1:
            dist.distributed_c10d._get_default_store().set(name, "1")

    def flag_raised(self, name: str) -> bool:
        """True once any rank has raised the flag. Not collective: an exchange with rank 0's store, not to be asked often."""
        return self.size > 1 and bool(dist.distributed_c10d._get_default_store().check([name]))
