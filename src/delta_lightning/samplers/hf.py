"""Sampling from the training model itself: batched generation with a key-value cache, nothing to install."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from delta_lightning.errors import RunError, require
from delta_lightning.functional.logprobs import chunk_tokens, chunked_head, head_logits, predicting_states
from delta_lightning.functional.random import keyed_uniform, stable_hash
from delta_lightning.functional.sampling import draw, warp_logits
from delta_lightning.interfaces import Sampler, SamplerContext, SamplerSession
from delta_lightning.samplers.threads import in_threads, shares
from delta_lightning.types import Completion, Prompt, SamplingParams, SyncReceipt

HEAD_BUDGET = 1 << 26  # bytes of float32 logits that the probe holds at a time
COMPACT_BELOW = 7 / 8  # finished rows leave the batch once this share is left: leaving copies the cache


@dataclass(frozen=True, kw_only=True)
class HFSampler(Sampler):
    """Samples from the training model in place: what a laptop and the tests run.

    Each prompt is prefilled once for its whole group, finished rows leave the batch, and every draw is keyed by
    (seed, prompt id, sample index, position), so completions do not depend on the batch that they were sampled in
    beyond the rounding of the logits.

    Args:
        max_rows: completions decoded at a time; the key-value cache grows with it.
        threads: parts of the prompts decoded side by side on a CPU, each on one core; 0 takes as many as PyTorch has
            threads. On a GPU one is used.
    """

    max_rows: int = 1024
    threads: int = 0

    def __post_init__(self) -> None:
        require(self.max_rows >= 1, "HFSampler.max_rows", wanted="at least 1", got=self.max_rows, remedy="Raise it.")
        require(
            self.threads >= 0, "HFSampler.threads", wanted="0 or more", got=self.threads, remedy="0 takes all of PyTorch's."
        )

    def open(self, context: SamplerContext) -> SamplerSession:
        """A session on the live model: weight updates are seen at once."""
        return HFSession(context, max_rows=self.max_rows, threads=self.threads)


class HFSession(SamplerSession):
    """See `HFSampler`."""

    def __init__(self, context: SamplerContext, *, max_rows: int, threads: int) -> None:
        self._context, self._max_rows, self._version = context, max_rows, 0
        self._threads = (threads or torch.get_num_threads()) if context.device.type == "cpu" else 1
        self._stop_ids = stop_token_ids(context.model, context.tokenizer)

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        """Completions as their rows finish, prompts of similar length decoded together."""
        from delta_lightning.samplers.decoding import single_query_attention

        by_length = sorted(prompts, key=lambda prompt: (len(prompt.token_ids), prompt.id))
        per_batch = max(1, self._max_rows // num_completions)
        total, done = len(prompts) * num_completions, 0
        with single_query_attention(self._context.model):
            for start in range(0, len(by_length), per_batch):
                parts = shares(by_length[start : start + per_batch], self._threads)
                tasks = [_Decoding(self, part, num_completions, params, seed).run for part in parts]
                for completions in in_threads(tasks) if len(tasks) > 1 else tasks[0]():
                    done += len(completions)
                    yield from completions
                    if self._context.tick is not None:
                        self._context.tick(done, total)

    @torch.no_grad()
    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Log-probabilities at temperature 1 of tokens 1.. of each sequence, [len - 1]."""
        results = []
        for ids in token_ids:
            tokens_BT = torch.tensor([list(ids)], device=self._context.device)
            mask_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
            mask_BT[:, 0] = False
            hidden = self._context.model.model(input_ids=tokens_BT, use_cache=False).last_hidden_state
            weight_VD = self._context.model.lm_head.weight
            chunk = chunk_tokens(weight_VD.shape[0], HEAD_BUDGET)
            results.append(
                chunked_head(predicting_states(hidden, mask_BT), weight_VD, tokens_BT[0, 1:], chunk=chunk).logprobs_N
            )
        return results

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        """The model is shared, so only the version changes; `weights` is exhausted because it may be a collective."""
        received = [tensor.numel() * tensor.element_size() for _, tensor in weights]
        self._version = version
        return SyncReceipt(version=version, num_tensors=len(received), num_bytes=sum(received), seconds=0.0)

    def close(self) -> None:
        """Nothing to free: the model belongs to the trainer."""


def stop_token_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """End-of-sequence ids of the tokenizer and of the model's generation config. Raises `RunError` if there is none."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])} - {None}
    if not ids:
        raise RunError("neither the tokenizer nor the model's generation config names an end-of-sequence token")
    return tuple(sorted(ids))


class _Decoding:
    """One batch of groups, from prefill to the last finished row."""

    def __init__(self, session: HFSession, prompts: Sequence[Prompt], group: int, params: SamplingParams, seed: int) -> None:
        context = session._context
        self.model, self.tokenizer, self.device = context.model, context.tokenizer, context.device
        self.prompts, self.group, self.params, self.version = prompts, group, params, session._version
        self.stop_ids = torch.tensor(session._stop_ids, device=self.device)
        self.owner = [(prompt, index) for prompt in prompts for index in range(group)]
        keys = [stable_hash(seed, prompt.id, index, "sample") for prompt, index in self.owner]
        self.keys_B = torch.tensor(keys, device=self.device)

    def run(self) -> Iterator[list[Completion]]:
        """Decode until every row has stopped or reached the limit; yields the rows that ended at each position."""
        limit = self.params.max_new_tokens
        logits, cache, attend = self._prefill()
        alive = torch.arange(len(self.owner), device=self.device)  # batch row -> index into `owner`
        running = torch.ones(len(self.owner), dtype=torch.bool, device=self.device)  # batch rows that have not ended
        tokens = torch.zeros(len(self.owner), limit, dtype=torch.int64)
        sampled, raw = torch.zeros(len(self.owner), limit), torch.zeros(len(self.owner), limit)
        for position in range(limit):
            chosen, sampled_lp, raw_lp = self._draw(logits, alive, position)
            rows = alive.cpu()
            tokens[rows, position] = chosen.cpu()
            sampled[rows, position], raw[rows, position] = sampled_lp.float().cpu(), raw_lp.float().cpu()
            stopped = torch.isin(chosen, self.stop_ids)
            ended = running & (stopped if position + 1 < limit else torch.ones_like(stopped))
            part = slice(0, position + 1)
            yield [
                self._completion(row, tokens[row, part], sampled[row, part], raw[row, part], stop)
                for row, stop in zip(alive[ended].tolist(), stopped[ended].tolist(), strict=True)
            ]
            running = running & ~ended
            left = int(running.sum())
            if left == 0:
                return
            if left <= COMPACT_BELOW * len(running):
                kept = running.nonzero()[:, 0]
                cache.batch_select_indices(kept)
                alive, chosen, attend, running = alive[kept], chosen[kept], attend[kept], running[kept]
            logits, attend = self._step(chosen, attend, cache)

    def _prefill(self) -> tuple[Tensor, Any, Tensor]:
        """One forward pass per prompt, left-padded, then every row of the group starts from its prompt's cache."""
        from delta_lightning.samplers.decoding import allocated_cache

        longest = max(len(prompt.token_ids) for prompt in self.prompts)
        ids = torch.zeros(len(self.prompts), longest, dtype=torch.int64)
        attend = torch.zeros(len(self.prompts), longest, dtype=torch.bool)
        for row, prompt in enumerate(self.prompts):
            ids[row, longest - len(prompt.token_ids) :] = torch.tensor(prompt.token_ids)
            attend[row, longest - len(prompt.token_ids) :] = True
        ids, attend = ids.to(self.device), attend.to(self.device)
        cache = allocated_cache(self.model.config.num_hidden_layers, longest + self.params.max_new_tokens)
        logits = self._forward(ids, attend, cache)
        cache.batch_repeat_interleave(self.group)
        return logits.repeat_interleave(self.group, 0), cache, attend.repeat_interleave(self.group, 0)

    def _step(self, chosen: Tensor, attend: Tensor, cache: Any) -> tuple[Tensor, Tensor]:
        attend = torch.cat([attend, attend.new_ones(len(attend), 1)], dim=1)
        return self._forward(chosen[:, None], attend, cache), attend

    def _forward(self, ids: Tensor, attend: Tensor, cache: Any) -> Tensor:
        """Logits at the sampling temperature after the last position, [rows, V], float32."""
        positions = (attend.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.model.model(
            input_ids=ids, attention_mask=attend, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return head_logits(out.last_hidden_state[:, -1], self.model.lm_head.weight, self.params.temperature)

    def _draw(self, logits: Tensor, alive: Tensor, position: int) -> tuple[Tensor, Tensor, Tensor]:
        """The next tokens, their log-probabilities as sampled, and with temperature only."""
        raw = torch.log_softmax(logits, -1)
        if not bool(torch.isfinite(raw[:, 0]).all()):  # one bad logit spoils the whole row of a softmax
            raise RunError(
                f"the model's logits are not finite at token {position} of a completion; its weights may have diverged"
            )
        warped = warp_logits(raw, top_p=self.params.top_p, top_k=self.params.top_k)
        noise = keyed_uniform(self.keys_B[alive], torch.tensor([position], device=self.device))[:, 0]
        chosen = draw(warped, noise)
        return chosen, warped.gather(1, chosen[:, None])[:, 0], raw.gather(1, chosen[:, None])[:, 0]

    def _completion(self, row: int, tokens: Tensor, sampled: Tensor, raw: Tensor, stopped: bool) -> Completion:
        prompt, index = self.owner[row]
        ids = tokens.tolist()
        return Completion(
            prompt_id=prompt.id,
            sample_index=index,
            token_ids=array("q", ids),
            text=self.tokenizer.decode(ids, skip_special_tokens=True),
            finish_reason="stop" if stopped else "length",
            version=self.version,
            logprobs=array("f", sampled.tolist()),
            raw_logprobs=array("f", raw.tolist()),
        )
