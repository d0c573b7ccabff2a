"""Where a completion ends, and which tokens it may not take."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.types import SamplingParams

BROKEN = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer shows for part of a character


def stop_token_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """End-of-sequence ids of the tokenizer and of the model's generation config. Raises `RunError` if there is none."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])} - {None}
    if not ids:
        raise RunError("neither the tokenizer nor the model's generation config names an end-of-sequence token")
    return tuple(sorted(ids))


class StopRules:
    """When a completion has ended: a stop token, or the token that completes a stop string. Either stays in the completion.

    Stop strings are looked for in the completion's decoded text, not in the prompt, special tokens left out, after every token
    that can complete one.

    Args:
        params: stop strings and ids beside the model's own. ends: end-of-sequence ids. vocabulary: tokens of the model's head.

    Raises:
        ConfigError: a stop id outside the vocabulary.
    """

    def __init__(self, params: SamplingParams, *, ends: Sequence[int], tokenizer: Any, vocabulary: int) -> None:
        _in_vocabulary(params.stop_token_ids, vocabulary, "model.sampling.stop_token_ids")
        self.ids = frozenset((*ends, *params.stop_token_ids))
        self.strings, self.tokenizer, self.vocabulary = params.stop, tokenizer, vocabulary
        self._window = max((len(text.encode()) for text in self.strings), default=0)

    def ended(self, tokens: Sequence[int]) -> bool:
        """True if the last of the completion's tokens ends it; the tokens before it did not."""
        last = tokens[-1]
        return last in self.ids or (bool(self.strings) and last in self._enders and self._completes(tokens))

    @cached_property
    def _pieces(self) -> list[str]:
        return [self.tokenizer.decode([token], skip_special_tokens=True) for token in range(self.vocabulary)]

    @cached_property
    def _enders(self) -> frozenset[int]:
        """Tokens whose text has the last character of a stop string, whole or in part.

        Some tokenizers decode a token alone without the space that it begins with, which only a string that ends in one needs.
        """
        if any(text[-1].isspace() for text in self.strings):
            return frozenset(range(self.vocabulary))
        marks = {text[-1] for text in self.strings} | {BROKEN}
        return frozenset(token for token, piece in enumerate(self._pieces) if not marks.isdisjoint(piece))

    def _completes(self, tokens: Sequence[int]) -> bool:
        """Decodes only as many tokens as the longest string has bytes, and some before them, which a cut may garble."""
        start, wanted = len(tokens), self._window + 4
        while start > 0 and wanted > 0:
            start -= 1
            wanted -= bool(self._pieces[tokens[start]])
        text = self.tokenizer.decode(list(tokens[start:]), skip_special_tokens=True)
        return any(string in text for string in self.strings)


class Bans:
    """Tokens that may not be drawn: some never, some never after certain others.

    A bad word is banned as the token sequences of the word and of the word after a space: its last token may not follow its
    other tokens within a completion. Other ways to spell it are not found.

    Args:
        params: bad token ids and words. tokenizer: encodes the words. vocabulary: tokens of the model's head.

    Raises:
        ConfigError: an id outside the vocabulary, a word without tokens, or nothing left to draw.
    """

    def __init__(self, params: SamplingParams, *, tokenizer: Any, vocabulary: int) -> None:
        _in_vocabulary(params.bad_token_ids, vocabulary, "model.sampling.bad_token_ids")
        never = set(params.bad_token_ids)
        self.sequences: list[tuple[list[int], int]] = []
        for word in params.bad_words:
            for text in dict.fromkeys((word, " " + word.lstrip())):
                ids = list(tokenizer.encode(text, add_special_tokens=False))
                require(bool(ids), "model.sampling.bad_words", wanted="words that the tokenizer knows", got=word,
                        remedy="Remove it.")  # fmt: skip
                if len(ids) == 1:
                    never.add(ids[0])
                else:
                    self.sequences.append((ids[:-1], ids[-1]))
        require(len(never) < vocabulary, "model.sampling.bad_token_ids", wanted=f"fewer than the vocabulary's {vocabulary}",
                got=len(never), remedy="Leave something to draw.")  # fmt: skip
        self.never = sorted(never)

    def mask(self, logprobs_BV: Tensor, completions: Sequence[Sequence[int]]) -> Tensor:
        """The log-probabilities, not renormalised, -inf at tokens that may not follow each row's completion so far."""
        if not self.never and not self.sequences:
            return logprobs_BV
        banned = torch.zeros_like(logprobs_BV, dtype=torch.bool)
        banned[:, self.never] = True
        for row, tokens in enumerate(completions):
            for prefix, last in self.sequences:
                if list(tokens[-len(prefix) :]) == prefix:
                    banned[row, last] = True
        return logprobs_BV.masked_fill(banned, -torch.inf)


def _in_vocabulary(ids: Sequence[int], vocabulary: int, setting: str) -> None:
    unknown = [token for token in ids if not 0 <= token < vocabulary]
    if unknown:
        raise ConfigError(setting, wanted=f"token ids from 0 to {vocabulary - 1}, the model's vocabulary", got=str(unknown),
                          remedy="Ask the tokenizer: tokenizer.convert_tokens_to_ids('...').")  # fmt: skip
