"""Proof, after each update of the sampler's weights, that it serves the weights that the trainer holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from delta_lightning.errors import RunError, require
from delta_lightning.interfaces import SamplerSession
from delta_lightning.models.probe import sequence_logprobs
from delta_lightning.models.sharding import device_of
from delta_lightning.models.weights import weights_of
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Completion, Prompt, SyncReceipt

WORDS, EXCERPT = 8, 60  # tokens and characters that a message shows
HALF_MEAN, HALF_MAX = 0.05, 1.0  # nats; what is usual with an engine in half precision
ROUNDING = 4  # an engine that rounds everything differs by at most this many times what rounding the activations makes


@dataclass(frozen=True, kw_only=True)
class WeightCheck:
    """What the sampler must prove after each update of its weights, whatever engine it is.

    The version that it names, and the numbers of tensors and bytes, must be those that were sent. Then it scores a fixed
    probe, `sequences` pieces of `tokens` tokens each, cut from the first training prompts set one after another; its
    log-probabilities at temperature 1 must be the trainer's. A run that fails the proof stops before it samples. What the
    probe cannot see, such as weights one update old after a very small update, is smaller than the tolerance on these tokens.

    Args:
        sequences: pieces of the probe; 0 leaves the probe out and compares versions and counts only.
        tokens: length of each piece, at least 2.
        mean_nats: largest mean difference of log-probabilities over the probe. The defaults are for engines that compute in
            float32; with an engine in bfloat16 beside float32 weights 0.05 is usual.
        max_nats: largest difference at any token; 1.0 is usual in bfloat16.
    """

    sequences: int = 4
    tokens: int = 64
    mean_nats: float = 1e-4
    max_nats: float = 1e-3

    def __post_init__(self) -> None:
        for name, least in (("sequences", 0), ("tokens", 2), ("mean_nats", 0), ("max_nats", 0)):
            value = getattr(self, name)
            require(value >= least, f"weight_check.{name}", wanted=f"at least {least}", got=value, remedy="Raise it.")


class WeightProof:
    """Updates a sampler's weights and holds it to a `WeightCheck`.

    Args:
        check: what is demanded. prompts: where the probe comes from. context: longest sequence of the model, or None.
        state: of the proof that a resumed run goes on with (`state_dict`).
    """

    def __init__(
        self, check: WeightCheck, prompts: Sequence[Prompt], context: int | None, state: Mapping[str, Any] | None = None
    ) -> None:
        self._check = check
        length = min(check.tokens, context - 1) if context else check.tokens  # an engine may need room for one new token
        self._probe = probe_sequences(prompts, check.sequences, length)
        self._before: Tensor | None = None  # the trainer's log-probabilities of the probe under the version before
        self._served: tuple[int, Tensor] | None = None  # the version served last, and those log-probabilities
        if state and state["probe"] == self._probe:
            self._served, self._before = (state["version"], state["logprobs"]), state["before"]

    def state_dict(self) -> dict[str, Any]:
        """The version served last, and log-probabilities of the probe, for a checkpoint; empty before the first."""
        if self._served is None:
            return {}
        return {"version": self._served[0], "logprobs": self._served[1], "before": self._before, "probe": self._probe}

    def deliver(self, session: SamplerSession, version: int, policy: Any, book: MetricBook) -> SyncReceipt:
        """Hand the policy's weights over and check the receipt. Raises `RunError`."""
        sent = _Sent(weights_of(policy))
        receipt = session.update_weights(version, sent)
        if not sent.exhausted:
            raise RunError(f"the sampler left weights of version {version} unread after {sent.num_tensors} tensors")
        if receipt.version != version:
            raise RunError(
                f"the sampler serves weights of version {receipt.version} after it was given those of version {version}"
            )
        if (receipt.num_tensors, receipt.num_bytes) != (sent.num_tensors, sent.num_bytes):
            raise RunError(
                f"the sampler received {receipt.num_tensors} of the {sent.num_tensors} tensors of version {version} "
                f"({receipt.num_bytes} of {sent.num_bytes} bytes)"
            )
        book.maximum("sync/sent_mib", sent.num_bytes / 2**20)
        return receipt

    @torch.no_grad()
    def probe(self, session: SamplerSession, version: int, policy: Any, book: MetricBook) -> None:
        """Compare log-probabilities of the probe. Collective. Raises `RunError` with the numbers, on all ranks if on one."""
        if not self._probe:
            return
        ours = torch.cat(sequence_logprobs(policy, self._probe)).double().cpu()
        found = {name: torch.cat([values.double().cpu() for values in parts])
                 for name, parts in session.logprobs_by_engine(self._probe).items()}  # fmt: skip
        for theirs in found.values():
            book.maximum("sync/probe_mean_nats", float((theirs - ours).abs().mean()))
            book.maximum("sync/probe_max_nats", float((theirs - ours).abs().max()))
        if self._served is not None and self._served[0] != version:  # an evaluation may have served this one already
            self._before = self._served[1]
        if self._before is not None:
            book.maximum("sync/moved_max_nats", float((ours - self._before).abs().max()))
        off = next((name for name, theirs in found.items() if not self._fits(theirs - ours)), None)
        fits, check = off is None, self._check
        theirs = found[off if off is not None else next(iter(found))]
        gap = (theirs - ours).abs()
        if float(Ranks.current().all_sum(torch.tensor(float(not fits), device=device_of(policy)))):
            diagnosis = self._diagnosis(ours, theirs, policy)  # collective
            if fits:
                raise RunError(f"after the update to version {version} another rank's sampler has not the trainer's weights")
            named = f"the sampler {off}" if off else "the sampler"
            raise RunError(
                f"after the update to version {version} {named}'s log-probabilities of {len(gap)} probe tokens differ from the "
                f"trainer's by {float(gap.mean()):.3g} nats in the mean and {float(gap.max()):.3g} at most; model.weight_check "
                f"allows {check.mean_nats:g} and {check.max_nats:g}. {diagnosis}"
            )
        self._served = (version, ours)

    def _fits(self, gap: Tensor) -> bool:
        """False also where a number is NaN."""
        return float(gap.abs().mean()) <= self._check.mean_nats and float(gap.abs().max()) <= self._check.max_nats

    def _diagnosis(self, ours: Tensor, theirs: Tensor, policy: Any) -> str:
        gap = float((theirs - ours).abs().mean())
        with torch.autocast(device_of(policy).type, torch.bfloat16):  # first: every rank must enter the model
            rounded = torch.cat(sequence_logprobs(policy, self._probe)).double().cpu()
        if not bool(ours.isfinite().all()):
            return (
                "The trainer's own are not finite, as after an update that went too far. Lower the learning rate, and go on "
                "from the last checkpoint."
            )
        rounding = float((rounded - ours).abs().mean())
        if self._before is not None and float((theirs - self._before).abs().mean()) < 0.1 * gap:
            return "They are those of the version before: the sampler still serves stale weights."
        if gap < ROUNDING * rounding:
            return (
                f"Rounding to bfloat16 changes the trainer's own by {rounding:.3g}, so this looks like another dtype: give the "
                "sampler the trainer's (dtype: float32), or allow it with "
                f"--model.weight_check.mean_nats={HALF_MEAN} --model.weight_check.max_nats={HALF_MAX}."
            )
        return (
            "Some parameters did not arrive, or arrived in another's place: rounding to bfloat16 would change the trainer's "
            f"own by {rounding:.3g}."
        )


def check_text(completion: Completion, tokenizer: Any) -> None:
    """Text is what verifiers judge: the sampler's must be the trainer's reading of the tokens. Raises `RunError`."""
    ids = list(completion.token_ids)
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if completion.text != text:
        raise RunError(
            f"the sampler reads tokens {ids[:WORDS]} ... as {completion.text[:EXCERPT]!r}, the trainer's tokenizer as "
            f"{text[:EXCERPT]!r}: they do not have the same tokenizer"
        )


def probe_sequences(prompts: Sequence[Prompt], sequences: int, tokens: int) -> list[list[int]]:
    """`sequences` pieces of `tokens` tokens of the prompts set one after another, begun again where they run out."""
    stream: list[int] = []
    for prompt in prompts:
        stream.extend(prompt.token_ids)
        if len(stream) >= sequences * tokens:
            break
    if not stream:
        return []
    endless = stream * (-(-sequences * tokens // len(stream)))
    return [endless[index * tokens : (index + 1) * tokens] for index in range(sequences)]


class _Sent:
    """The weights on their way, counted."""

    def __init__(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self._weights = iter(weights)
        self.num_tensors, self.num_bytes, self.exhausted = 0, 0, False

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._weights:
            self.num_tensors += 1
            self.num_bytes += tensor.numel() * tensor.element_size()
            yield name, tensor
        self.exhausted = True
