"""Sampling from the training model itself: batched generation with a key-value cache, nothing to install."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.interfaces import Sampler, SamplerContext, SamplerSession
from delta_lightning.models.probe import sequence_logprobs
from delta_lightning.models.sharding import sharding_of, whole
from delta_lightning.samplers.rows import Waiting, groups
from delta_lightning.samplers.stopping import Bans, StopRules, stop_token_ids
from delta_lightning.samplers.threads import in_threads
from delta_lightning.types import Completion, Prompt, SamplingParams, SyncReceipt

ROWS_PER_THREAD = 128  # with fewer rows a second thread cost processor time, and gave none by the clock


@dataclass(frozen=True, kw_only=True)
class HFSampler(Sampler):
    """Samples from the training model in place: what a laptop and the tests run.

    Each prompt is prefilled once for its whole group, completions that end leave the batch, and waiting prompts take their
    places while the long ones go on. Every draw is keyed by (seed, prompt id, sample index, position), so completions do not
    depend on the batch that they were sampled in beyond the rounding of the logits; the same prompts, seed, weights and options
    give the same completions bit by bit on the same machine, in whatever order the prompts come.

    Args:
        max_rows: completions decoded at a time.
        cache_gib: most memory of their keys and values, GiB. Where it is spent, the youngest completions wait, and are
            prefilled again. One completion is decoded in any case; copies of keys and values may double them for a moment.
        threads: parts of the prompts decoded side by side on a CPU, each on one core; 0 takes as many as PyTorch has
            threads, fewer for few completions. On a GPU, and with a sharded model, one is used.
    """

    max_rows: int = 1024
    cache_gib: float = 4.0
    threads: int = 0

    def __post_init__(self) -> None:
        require(self.max_rows >= 1, "HFSampler.max_rows", wanted="at least 1", got=self.max_rows, remedy="Raise it.")
        require(self.cache_gib > 0, "HFSampler.cache_gib", wanted="more than 0", got=self.cache_gib, remedy="Raise it.")
        require(
            self.threads >= 0, "HFSampler.threads", wanted="0 or more", got=self.threads, remedy="0 takes all of PyTorch's."
        )

    def open(self, context: SamplerContext) -> SamplerSession:
        """A session on the live model: weight updates are seen at once. Raises `RunError` without an end-of-sequence token."""
        return HFSession(context, self)


class HFSession(SamplerSession):
    """See `HFSampler`."""

    def __init__(self, context: SamplerContext, options: HFSampler) -> None:
        self._context, self._options, self._version = context, options, 0
        self._ends = stop_token_ids(context.model, context.tokenizer)
        self._stops: tuple[SamplingParams, StopRules] | None = None

    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        """Completions as their rows end. Raises `ConfigError` at once for prompts and options that cannot be sampled."""
        model, tokenizer = self._context.model, self._context.tokenizer
        context = getattr(model.config, "max_position_embeddings", None)
        vocabulary = int(model.lm_head.weight.shape[0])
        waiting = groups(
            prompts, num_completions=num_completions, params=params, seed=seed, context=context, vocabulary=vocabulary
        )
        stops, bans = self._stop_rules(params, vocabulary), Bans(params, tokenizer=tokenizer, vocabulary=vocabulary)
        completions: Generator[Completion, None, None] = self._generate(waiting, params, stops, bans)
        return completions

    @torch.no_grad()
    def _generate(
        self, waiting: list[Waiting], params: SamplingParams, stops: StopRules, bans: Bans
    ) -> Generator[Completion, None, None]:
        with whole(self._context.model):  # ranks may then differ in the lengths of their completions
            yield from self._decoded(waiting, params, stops, bans)

    def _decoded(
        self, waiting: list[Waiting], params: SamplingParams, stops: StopRules, bans: Bans
    ) -> Generator[Completion, None, None]:
        from delta_lightning.samplers.decoding import single_query_attention
        from delta_lightning.samplers.engine import Engine, Limits

        total, done = sum(len(entry.rows) for entry in waiting), 0
        count = max(1, min(self._threads(total), len(waiting)))
        limits = Limits(rows=max(1, self._options.max_rows // count), cache_bytes=int(self._options.cache_gib * 2**30) // count)
        engines = [
            Engine(
                self._context.model,
                self._context.tokenizer,
                params,
                stops=stops,
                bans=bans,
                limits=limits,
                version=self._version,
            )
            for _ in range(count)
        ]
        tasks = [lambda engine=engine, share=waiting[k::count]: engine.run(share) for k, engine in enumerate(engines)]
        with single_query_attention(self._context.model):
            for completions in in_threads(tasks) if count > 1 else tasks[0]():
                done += len(completions)
                yield from completions
                if self._context.tick is not None:
                    self._context.tick(done, total)

    def _threads(self, completions: int) -> int:
        if self._context.device.type != "cpu" or sharding_of(self._context.model) is not None:
            return 1
        return self._options.threads or min(torch.get_num_threads(), completions // ROWS_PER_THREAD)

    def _stop_rules(self, params: SamplingParams, vocabulary: int) -> StopRules:
        """Kept between calls: stop strings need the text of every token."""
        if self._stops is None or self._stops[0] != params:
            rules = StopRules(params, ends=self._ends, tokenizer=self._context.tokenizer, vocabulary=vocabulary)
            self._stops = (params, rules)
        return self._stops[1]

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Log-probabilities at temperature 1 of tokens 1.. of each sequence, [len - 1]."""
        return sequence_logprobs(self._context.model, token_ids)

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        """The model is shared, so only the version changes; `weights` is exhausted because it may be a collective."""
        self._version = version
        return counted(version, weights)

    def close(self) -> None:
        """Nothing to free: the model belongs to the trainer."""


def counted(version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
    """The receipt of a session that needs no weights of its own; reads them all, because that may be a collective."""
    received = [tensor.numel() * tensor.element_size() for _, tensor in weights]
    return SyncReceipt(version=version, num_tensors=len(received), num_bytes=sum(received), seconds=0.0)
