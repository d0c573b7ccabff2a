"""A sampler with a model of its own, as one in another process has, and events that say what happened in which order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from delta_lightning.interfaces import Sampler, SamplerContext, SamplerSession
from delta_lightning.types import Completion, Prompt, SamplingParams, SyncReceipt
from support.copies import CopySession


class Log:
    """What happened, in order, from any thread; one for the process."""

    events: ClassVar[list[tuple[Any, ...]]] = []
    in_background: ClassVar[Callable[[int], None]] = lambda done: None  # called before each completion, with those before it

    @classmethod
    def clear(cls) -> None:
        cls.events, cls.in_background = [], lambda done: None

    @classmethod
    def add(cls, *event: Any) -> None:
        cls.events.append(event)


@dataclass(frozen=True, kw_only=True)
class ApartSampler(Sampler):
    """`HFSampler` on a copy of the model that only `update_weights` changes; logs to `Log`."""

    def own_process(self) -> bool:
        return True

    def open(self, context: SamplerContext) -> SamplerSession:
        return _ApartSession(context)


class _ApartSession(SamplerSession):
    def __init__(self, context: SamplerContext) -> None:
        self._inner, self._context, self.version = CopySession(context.model, context.tokenizer), context, 0
        self._busy, self._closed = False, False

    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        self._alone()
        background = threading.current_thread() is not threading.main_thread()
        torch.set_num_threads(1)  # of this thread
        Log.add("sample", self.version, background)
        self._busy, done = True, 0
        try:
            with closing(self._inner.generate(prompts, num_completions=num_completions, params=params, seed=seed)) as sampled:
                for completion in sampled:
                    if background:
                        Log.in_background(done)
                    done += 1
                    yield completion
                    if self._context.tick is not None:
                        self._context.tick(done, len(prompts) * num_completions)
        finally:
            self._busy = False
            Log.add("sampled", self.version, background, done)

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        self._alone()
        return self._inner.logprobs(token_ids)

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        self._alone()
        Log.add("update", version)
        self.version = version
        return self._inner.update_weights(version, weights)

    def close(self) -> None:
        if not self._closed:
            Log.add("close")
        self._closed = True

    def _alone(self) -> None:
        assert not self._closed, "the session is closed"
        assert not self._busy, "two users of one session"
