"""How a rollout step is cut, for completions of a given length: sequences, micro-batches, tokens."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.models.packed import MASKING, Packed
from delta_lightning.planning.dry import Pass
from delta_lightning.trainer.batching import fewest
from delta_lightning.trainer.collate import Cut


@dataclass(frozen=True, kw_only=True)
class StepSizes:
    """A rollout step with P prompts, G completions each, whose prompts and completions all have one length.

    Attributes:
        ranks: that share the prompts. prompts, sequences: P, and P G, over all ranks.
        rank_sequences: B, those of the rank with the most. prompt_tokens, completion_tokens: of each sequence.
        updates, micro_batches: optimiser steps, and forward passes of each rank in each.
        largest: the costliest micro-batch. idle: (update, rank) pairs without a sequence.
    """

    ranks: int
    prompts: int
    sequences: int
    rank_sequences: int
    prompt_tokens: int
    completion_tokens: int
    updates: int
    micro_batches: int
    largest: Pass
    idle: int

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def rank_trained(self) -> int:
        """N: completion tokens of a rank."""
        return self.rank_sequences * self.completion_tokens

    @classmethod
    def of(
        cls, cut: Cut, *, completions: int, ranks: int, prompt_tokens: int, completion_tokens: int, attention: str
    ) -> StepSizes:
        """Sizes as `trainer.collate` cuts: groups go round over the ranks, consecutive ones into the same update."""
        rows = [[0] * ranks for _ in range(cut.updates)]
        for group in range(cut.num_groups):
            rows[cut.update_of(group)][group % ranks] += completions
        length = prompt_tokens + completion_tokens
        most = max(max(one) for one in rows)
        micro = cut.micro if cut.budget is None else max(cut.micro, fewest([length] * most, cut.layout, cut.budget))
        parts = cut.layout.cut([length] * most, micro)
        count = max(map(len, parts))
        packed = isinstance(cut.layout, Packed)
        return cls(
            ranks=ranks, prompts=cut.num_groups, sequences=cut.num_groups * completions, updates=cut.updates,
            rank_sequences=max(sum(one[rank] for one in rows) for rank in range(ranks)), prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens, micro_batches=micro, idle=sum(value == 0 for one in rows for value in one),
            largest=Pass(
                rows=1 if packed else count, columns=count * length if packed else length, trained=count * completion_tokens,
                packed=packed and attention in MASKING,
            ),
        )  # fmt: skip
