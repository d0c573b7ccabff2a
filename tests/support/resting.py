"""A sampler that takes rest seriously: it samples and scores only between an update of weights and the next rest."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from delta_lightning.errors import RunError
from delta_lightning.interfaces import Sampler, SamplerContext, SamplerSession
from delta_lightning.samplers import HFSampler
from delta_lightning.types import Completion, Prompt, SamplingParams, SyncReceipt

CALLS: list[str] = []  # of the sessions of this process, without the scoring of probes


@dataclass(frozen=True, kw_only=True)
class Resting(Sampler):
    """`HFSampler`, but a session that rests fails when it is used."""

    def open(self, context: SamplerContext) -> SamplerSession:
        return _Session(HFSampler(threads=1).open(context))


class _Session(SamplerSession):
    def __init__(self, inner: SamplerSession) -> None:
        self.inner, self.rests = inner, False

    def awake(self) -> SamplerSession:
        if self.rests:
            raise RunError("used while it rests")
        return self.inner

    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        CALLS.append("generate")
        return self.awake().generate(prompts, num_completions=num_completions, params=params, seed=seed)

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        return self.awake().logprobs(token_ids)

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        CALLS.append("update")
        self.rests = False
        return self.inner.update_weights(version, weights)

    def rest(self) -> None:
        CALLS.append("rest")
        self.rests = True

    def close(self) -> None:
        self.inner.close()
