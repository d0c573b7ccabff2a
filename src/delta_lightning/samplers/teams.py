"""Ranks that share one engine: what each of them asks of it is put together, the same on all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from delta_lightning.errors import require
from delta_lightning.interfaces import SamplerContext
from delta_lightning.types import Prompt

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Team:
    """`size` neighbouring ranks, 0 and 1, 2 and 3, ..., as vLLM puts them together for tensor parallelism.

    Each has a part of every weight, so all of them run the same requests, and each keeps what is its own. With one rank in a
    team nothing is exchanged. Otherwise each method is collective over the ranks of all teams.

    Args:
        rank: of this process. share: see `SamplerContext.share`.
    """

    size: int
    rank: int
    share: Callable[[Any], list[Any]]

    @classmethod
    def of(cls, context: SamplerContext, size: int, *, setting: str) -> Team:
        """The team of this rank. Raises `ConfigError` if the ranks do not divide into teams of that size."""
        require(
            context.world_size % size == 0, setting, wanted=f"a divisor of the {context.world_size} training processes",
            got=size, remedy="Each rank belongs to one engine: change it, or trainer.devices.",
        )  # fmt: skip
        return cls(size=size, rank=context.rank, share=context.share)

    def gather(self, value: Item) -> list[Item]:
        """What each rank of the team gives, in rank order."""
        if self.size == 1:
            return [value]
        first = self.rank - self.rank % self.size
        return self.share(value)[first : first + self.size]

    def prompts(self, own: Sequence[Prompt]) -> list[Prompt]:
        """Ids and tokens of the team's prompts; one that several ranks ask for comes once, one that a rank repeats stays so."""
        known: dict[str, Prompt] = {}
        everyone: list[Prompt] = []
        for part in self.gather([_bare(prompt) for prompt in own]):
            everyone.extend(prompt for prompt in part if known.get(prompt.id) != prompt)
            known |= {prompt.id: prompt for prompt in part}
        return everyone

    def sequences(self, own: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """The team's token sequences, each once."""
        parts = self.gather([tuple(ids) for ids in own])
        return list(dict.fromkeys(ids for part in parts for ids in part))


def _bare(prompt: Prompt) -> Prompt:
    """What an engine needs of a prompt; tests and references may be large, and stay where they are."""
    return Prompt(id=prompt.id, text="", token_ids=tuple(prompt.token_ids), source="", reference={})
