"""Records what any sampler gives."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from delta_lightning.errors import ConfigError, require
from delta_lightning.interfaces import Sampler, SamplerContext, SamplerSession
from delta_lightning.samplers.hf import HFSampler
from delta_lightning.samplers.tape import PATTERN, TapeWriter, tape_path
from delta_lightning.types import Completion, Prompt, SamplingParams, SyncReceipt


@dataclass(frozen=True, kw_only=True)
class RecordingSampler(Sampler):
    """Another sampler, unchanged, whose completions are written to a folder that `RecordedSampler` plays again.

    Each rank has its own compressed file: token ids, texts, log-probabilities, versions of the weights, seeds, options, and the
    versions of the packages. A call of `generate` is written when it has ended; one that was interrupted is left out.

    Args:
        path: folder for the recording; it must not hold one already.
        sampler: what samples.
        resumed: the folder may hold a recording of this same run, which was stopped: it is gone on with, and what the run
            repeats since its checkpoint replaces what stands there from that call on.

    Raises:
        ConfigError: no path, or a folder with a recording, which is never overwritten unless `resumed` says so.
    """

    path: str
    resumed: bool = False
    sampler: Sampler = field(default_factory=HFSampler)

    def __post_init__(self) -> None:
        require(bool(self.path), "RecordingSampler.path", wanted="a folder", got=self.path, remedy="Name one.")
        if not self.resumed and any(Path(self.path).glob(PATTERN)):
            raise ConfigError(
                "RecordingSampler.path", wanted="a folder without a recording, which is never overwritten", got=self.path,
                remedy="Name another folder, or set resumed: true where this is the run that made it, going on.",
            )  # fmt: skip

    def check(self) -> Sequence[str]:
        """What the sampler itself asks of this machine."""
        return self.sampler.check()

    def own_process(self) -> bool:
        """As the sampler that it wraps."""
        return self.sampler.own_process()

    def ranks_sample_together(self) -> bool:
        """As the sampler that it wraps."""
        return self.sampler.ranks_sample_together()

    def open(self, context: SamplerContext) -> SamplerSession:
        """The sampler's own session and this rank's file. Raises `ConfigError` if that is there, `RunError` if it fails."""
        writer = TapeWriter(tape_path(self.path, context.rank), {
            "sampler": repr(self.sampler), "rank": context.rank, "world_size": context.world_size,
            "vocabulary": int(context.model.lm_head.weight.shape[0]),
        }, resumed=self.resumed)  # fmt: skip
        return _RecordingSession(self.sampler.open(context), writer)


class _RecordingSession(SamplerSession):
    """See `RecordingSampler`."""

    def __init__(self, inner: SamplerSession, writer: TapeWriter) -> None:
        self._inner, self._writer, self._version = inner, writer, 0

    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        """As the sampler gives them; written when the last has come."""
        sampled = self._inner.generate(prompts, num_completions=num_completions, params=params, seed=seed)
        return self._recorded(sampled, prompts, num_completions, params, seed)

    def _recorded(
        self,
        sampled: Generator[Completion, None, None],
        prompts: Sequence[Prompt],
        group: int,
        params: SamplingParams,
        seed: int,
    ) -> Generator[Completion, None, None]:
        kept = []
        with closing(sampled):
            for completion in sampled:
                kept.append(completion)
                yield completion
        self._writer.add(kept, prompts, params=params, seed=seed, num_completions=group, weights_version=self._version)

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """As the sampler gives them; not recorded."""
        return self._inner.logprobs(token_ids)

    def logprobs_by_engine(self, token_ids: Sequence[Sequence[int]]) -> dict[str, list[Tensor]]:
        """As the sampler gives them; not recorded."""
        return self._inner.logprobs_by_engine(token_ids)

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        """To the sampler."""
        self._version = version
        return self._inner.update_weights(version, weights)

    def rest(self) -> None:
        """So does the sampler."""
        self._inner.rest()

    def close(self) -> None:
        """Close the sampler."""
        self._inner.close()
