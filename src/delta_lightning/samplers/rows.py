"""What is sampled: rows, each one completion in the making, and what of them waits."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from delta_lightning.errors import ConfigError, require
from delta_lightning.functional.random import stable_hash
from delta_lightning.types import Completion, Prompt, SamplingParams

NAMED = 5  # offenders named in a message


@dataclass(eq=False)
class Row:
    """One completion in the making. `limit` is its most tokens, `key` that of its draws."""

    prompt: Prompt
    index: int
    key: int
    limit: int
    tokens: array[int] = field(default_factory=lambda: array("q"))
    logprobs: array[float] = field(default_factory=lambda: array("f"))
    raw_logprobs: array[float] = field(default_factory=lambda: array("f"))

    @property
    def length(self) -> int:
        """Tokens of prompt and completion so far."""
        return len(self.prompt.token_ids) + len(self.tokens)

    def completion(self, tokenizer: Any, *, stopped: bool, version: int) -> Completion:
        """The row as a completion."""
        return Completion(
            prompt_id=self.prompt.id,
            sample_index=self.index,
            token_ids=self.tokens,
            text=tokenizer.decode(self.tokens.tolist(), skip_special_tokens=True),
            finish_reason="stop" if stopped else "length",
            version=version,
            logprobs=self.logprobs,
            raw_logprobs=self.raw_logprobs,
        )


@dataclass(frozen=True)
class Waiting:
    """Rows that begin with the same tokens: a prompt's group, or one row that had to give way, with what it had."""

    rows: tuple[Row, ...]

    @property
    def token_ids(self) -> tuple[int, ...]:
        """What is prefilled, once for all rows."""
        return (*self.rows[0].prompt.token_ids, *self.rows[0].tokens)


def groups(
    prompts: Sequence[Prompt],
    *,
    num_completions: int,
    params: SamplingParams,
    seed: int,
    context: int | None,
    vocabulary: int | None = None,
) -> list[Waiting]:
    """One entry for each prompt, by length and id, whatever the order in which they were given.

    Args:
        context: positions that the model reads, None without a bound. A prompt's completions are at most what it leaves.
        vocabulary: tokens that the model knows; None where the engine looks at them itself.

    Raises:
        ConfigError: no completions are wanted, an id occurs twice, or a prompt is empty, leaves no room or has unknown tokens.
    """
    require(num_completions >= 1, "num_completions", wanted="at least 1", got=num_completions, remedy="Raise it.")
    seen: set[str] = set()
    for prompt in prompts:
        _check_prompt(prompt, context, vocabulary)
        require(prompt.id not in seen, f"prompt {prompt.id}", wanted="each prompt once: its id keys its draws",
                got="two of them", remedy="Give them ids of their own, or raise num_completions.")  # fmt: skip
        seen.add(prompt.id)
    return [
        Waiting(rows=tuple(
            Row(prompt=prompt, index=index, key=stable_hash(seed, prompt.id, index, "sample"),
                limit=params.max_new_tokens if context is None else min(params.max_new_tokens, context - len(prompt.token_ids)))
            for index in range(num_completions)
        ))
        for prompt in sorted(prompts, key=lambda prompt: (len(prompt.token_ids), prompt.id))
    ]  # fmt: skip


def _check_prompt(prompt: Prompt, context: int | None, vocabulary: int | None) -> None:
    length = len(prompt.token_ids)
    require(length >= 1, f"prompt {prompt.id}", wanted="at least one token", got=0,
            remedy="The template or the tokenizer left nothing: give it a text, or a beginning-of-sequence token.")  # fmt: skip
    if context is not None and length >= context:
        raise ConfigError(
            f"prompt {prompt.id}", wanted=f"at most {context - 1} tokens, since the model reads {context}", got=str(length),
            remedy="Lower data.max_prompt_tokens, or raise the model's context.",
        )  # fmt: skip
    if vocabulary is not None and not all(0 <= token < vocabulary for token in prompt.token_ids):
        unknown = [token for token in prompt.token_ids if not 0 <= token < vocabulary]
        raise ConfigError(
            f"prompt {prompt.id}", wanted=f"token ids from 0 to {vocabulary - 1}, the model's vocabulary",
            got=", ".join(map(str, unknown[:NAMED])), remedy="The tokenizer is another model's: give the model its own.",
        )  # fmt: skip
