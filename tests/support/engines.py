"""A sampler session and a judge without a model or a process: completions and verdicts are pure functions of their keys."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence

import torch

from delta_lightning.functional.random import stable_hash
from delta_lightning.interfaces import SamplerSession
from delta_lightning.types import Completion, Prompt, SamplingParams, Status, SyncReceipt, Verdict
from support.models import EOS


class ScriptedSession(SamplerSession):
    """Random token ids keyed by (seed, prompt id, sample index), lengths 1 to `max_new_tokens`."""

    def __init__(self, vocabulary: int = 64) -> None:
        self.vocabulary, self.version = vocabulary, 0

    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        for prompt in prompts:
            for index in range(num_completions):
                draw = random.Random(stable_hash(seed, prompt.id, index))
                length = draw.randint(1, params.max_new_tokens)
                stops = length < params.max_new_tokens
                ids = [draw.randrange(2, self.vocabulary) for _ in range(length - stops)] + [EOS] * stops
                yield Completion(
                    prompt_id=prompt.id, sample_index=index, token_ids=ids, text=" ".join(map(str, ids)),
                    finish_reason="stop" if stops else "length", version=self.version,
                    logprobs=[-1.0] * length, raw_logprobs=[-1.0] * length,
                )  # fmt: skip

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        return [torch.zeros(len(ids) - 1) for ids in token_ids]

    def update_weights(self, version: int, weights: Iterable[tuple[str, torch.Tensor]]) -> SyncReceipt:
        self.version = version
        return SyncReceipt(version=version, num_tensors=len(list(weights)), num_bytes=0, seconds=0.0)

    def close(self) -> None:
        pass


class InlineJudge:
    """Judges at once, in this process, with a given function."""

    def __init__(self, judge: Callable[[Prompt, Completion], Verdict]) -> None:
        self.judge = judge
        self.verdicts: list[tuple[Hashable, Verdict]] = []

    def submit(
        self, key: Hashable, prompt: Prompt, completion: Completion, tick: Callable[[int, int], None] | None = None
    ) -> None:
        self.verdicts.append((key, self.judge(prompt, completion)))

    def drain(self, tick: Callable[[int, int], None] | None = None) -> Iterator[tuple[Hashable, Verdict]]:
        verdicts, self.verdicts = self.verdicts, []
        yield from verdicts


def parity(prompt: Prompt, completion: Completion) -> Verdict:
    """Right if the sum of the tokens is odd; every answer to prompt p0 is right, so that one group has no signal."""
    right = prompt.id == "p0" or sum(completion.token_ids) % 2 == 1
    return Verdict(status=Status.CORRECT if right else Status.INCORRECT, reward=float(right))
