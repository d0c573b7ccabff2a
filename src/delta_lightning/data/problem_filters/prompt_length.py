"""Problems by the length of their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from delta_lightning.errors import require
from delta_lightning.interfaces import FilterContext, Keep, ProblemFilter
from delta_lightning.types import Problem


@dataclass(frozen=True, kw_only=True)
class PromptLength(ProblemFilter):
    """Keeps problems whose prompt, template included, has `min_tokens` <= tokens <= `max_tokens`; of both splits.

    Without it, prompts longer than `data.max_prompt_tokens` are refused.

    Args:
        min_tokens: shortest prompt, tokens. max_tokens: longest prompt, tokens.
    """

    min_tokens: int = 1
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        require(
            0 <= self.min_tokens <= self.max_tokens, "PromptLength", wanted="0 <= min_tokens <= max_tokens",
            got=f"{self.min_tokens} and {self.max_tokens}", remedy="Set them apart.",
        )  # fmt: skip

    def open(self, context: FilterContext) -> Keep:
        """Counts tokens of each problem's prompt."""

        def keep(problems: Sequence[Problem]) -> list[bool]:
            return [self.min_tokens <= length <= self.max_tokens for length in context.count_tokens(problems)]

        return keep

    def splits(self) -> frozenset[str]:
        """Both: what is too long cannot be sampled."""
        return frozenset({"train", "held_out"})
