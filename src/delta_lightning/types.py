"""Immutable containers. Shapes and units stand in their docstrings; nothing here computes.

Legend of the suffixes: P prompts per rollout step, G completions per prompt, B = P * G sequences (of this rank), T padded
positions, D hidden width, V vocabulary, R reward components, N trained tokens. Log-probabilities are natural logs.
Everything is token-aligned: index t describes token t itself (its log-probability, its credit, the hidden state that
predicted it). Importing this file does not import torch, so that verifier processes stay light.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from delta_lightning.errors import require
from delta_lightning.tensor_struct import TensorStruct

if TYPE_CHECKING:
    from torch import Tensor


class Need(Enum):
    """What a part asks the scoring pass for. The step computes only what somebody declared in `needs()`."""

    SCORES = "scores"  # log-probabilities under theta_old before the part runs (advantage estimators)
    ENTROPY = "entropy"  # entropies_BT, nats
    HIDDEN = "hidden"  # hidden_ND, the LM head's input at the trained tokens
    SUM_P_SQUARED = "sum_p_squared"  # sum over the vocabulary of p squared
    REFERENCE = "reference"  # log-probabilities under the frozen reference policy
    HEAD = "head"  # the LM head's weight and logits, chunk by chunk
    MINI_BATCH = "mini_batch"  # a pass over the mini-batch under the current policy, before its totals are taken


class Status(Enum):
    """What became of one verification."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NO_ANSWER = "no_answer"
    TIMEOUT = "timeout"
    ERROR = "error"  # ours: the verifier failed, which says nothing about the answer
    UNAVAILABLE = "unavailable"  # the service behind the verifier is away, which says nothing about the answer either


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One row of a data set, before any template or tokenizer.

    Attributes:
        id: unique within its source and stable between runs; it keys every random draw.
        question: the text that the template places in the prompt.
        reference: what the verifier declares that it reads, for example `{"answer": "72"}`.
        source: name of the data set.
        solution: a worked answer for supervised warm starts, or None.
    """

    id: str
    question: str
    reference: Mapping[str, Any]
    source: str
    solution: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A problem made ready for the sampler: `text` is the rendered template, `token_ids` its tokens, no padding."""

    id: str
    text: str
    token_ids: tuple[int, ...]
    source: str
    reference: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sampled answer. No tensors.

    Attributes:
        prompt_id: id of its prompt. sample_index: 0 .. G-1 within the group.
        token_ids: sampled tokens, the token that ended it included: the end of sequence, or what completed a stop string.
        text: the tokens decoded without special tokens; a stop string that was reached is in it.
        finish_reason: "stop" (end of sequence, stop token or stop string) or "length" (cut at the limit).
        version: version of the weights that sampled it.
        logprobs: per token, nats, of the distribution really sampled from (temperature, bad tokens, top-k, top-p, min-p).
        raw_logprobs: per token, nats, of the temperature-scaled distribution alone; the scorer must match these.
    """

    prompt_id: str
    sample_index: int
    token_ids: Sequence[int]
    text: str
    finish_reason: str
    version: int
    logprobs: Sequence[float]
    raw_logprobs: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a verifier says of one completion. `reward` counts only where `status` is neither ERROR nor UNAVAILABLE.

    Attributes:
        reward: scalar reward, in the verifier's own units (0 or 1 for the mathematics verifier).
        components: named parts of the reward, for multi-reward estimators and metrics.
        measures: named numbers that are no part of the reward, such as the share of tests passed; their means are logged.
        reason: one line for people, never parsed.
        token_weights: one weight per token of the completion, from a process judge or from data; None without them.
    """

    status: Status
    reward: float
    components: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    token_weights: Sequence[float] | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Example:
    """What a verifier says about itself: one completion with the status that it must get.

    Attributes:
        reference: what the data would give; it must be usable.
        text: the completion.
        status: what `score` must say of it; None where only the reference is to be tried.
        source: data set of the problem, for verifiers that dispatch by it.
    """

    reference: Mapping[str, Any]
    text: str
    status: Status | None
    source: str = "example"


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A prompt, one completion of it and its verdict. `counts` is False where the verdict takes it out of the batch."""

    prompt: Prompt
    completion: Completion
    verdict: Verdict
    counts: bool = True


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How completions are sampled. Bad tokens leave first, then top-k, top-p and min-p cut, in this order.

    The scorer uses the same temperature and the whole distribution. Every draw is keyed by (seed, prompt id, sample index,
    position), where the seed is that of the run and of the rollout step.

    Args:
        temperature: > 0; logits are divided by it before the softmax.
        top_p: in (0, 1]; keeps the most probable tokens whose mass reaches it. 1 keeps the whole distribution.
        top_k: number of tokens kept; 0 keeps all.
        min_p: in [0, 1); keeps tokens of at least that share of the largest probability. 0 keeps all.
        stop: strings that end a completion, beside the end of sequence; the token that completes one is its last, and stays.
        stop_token_ids: tokens that do the same.
        bad_words: words never spelled; the last of a word's tokens may not follow the others.
        bad_token_ids: tokens never drawn. The end of sequence may be among them: then only the limit ends a completion.
        max_new_tokens: longest completion, in tokens, the last one included; less where the model's context ends before.

    Raises:
        ConfigError: a field out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()
    bad_token_ids: tuple[int, ...] = ()
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        at = "model.sampling"
        require(0 < self.temperature < float("inf"), f"{at}.temperature", wanted="more than 0", got=self.temperature,
                remedy="1.0 samples from the model's own distribution; 0.01 is as good as greedy.")  # fmt: skip
        require(0 < self.top_p <= 1, f"{at}.top_p", wanted="a share in (0, 1]", got=self.top_p,
                remedy="1.0 keeps the whole distribution.")  # fmt: skip
        require(self.top_k >= 0, f"{at}.top_k", wanted="0 (all tokens) or more", got=self.top_k, remedy="Use 0.")
        require(0 <= self.min_p < 1, f"{at}.min_p", wanted="a share in [0, 1)", got=self.min_p, remedy="0 keeps all tokens.")
        require(self.max_new_tokens >= 1, f"{at}.max_new_tokens", wanted="at least 1", got=self.max_new_tokens,
                remedy="The paper uses 20480.")  # fmt: skip
        for name in ("stop", "bad_words"):
            texts = getattr(self, name)
            require(not isinstance(texts, str) and all(texts), f"{at}.{name}", wanted="a list of strings that are not empty",
                    got=texts, remedy="Remove it, or write it as a list.")  # fmt: skip
        for name in ("stop_token_ids", "bad_token_ids"):
            require(all(token >= 0 for token in getattr(self, name)), f"{at}.{name}", wanted="token ids from 0",
                    got=getattr(self, name), remedy="Ask the tokenizer: tokenizer.convert_tokens_to_ids('...').")  # fmt: skip

    def cuts(self) -> tuple[str, ...]:
        """The settings that make the sampled distribution differ from the temperature-scaled one, as `name=value`."""
        neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "bad_words": (), "bad_token_ids": ()}
        return tuple(f"{name}={getattr(self, name)}" for name, value in neutral.items() if getattr(self, name) != value)


@dataclass(frozen=True, kw_only=True)
class RolloutBatch(TensorStruct):
    """One row per sequence: prompt, then completion, then padding on the right.

    Example, prompt P0 P1 and completion A0 A1, one pad:
        token_ids_BT           P0    P1    A0    A1    0
        attention_mask_BT      T     T     T     T     F
        loss_mask_BT           F     F     T     T     F
        behaviour_logprobs_BT  0.0   0.0   -0.2  -1.1  0.0     nats; 0.0 where the mask is False

    Attributes:
        token_ids_BT: int64. attention_mask_BT: bool, True on real tokens.
        loss_mask_BT: bool, True on trained tokens; the one mask of every numerator and every denominator.
        behaviour_logprobs_BT: float32, of the distribution really sampled from.
        raw_logprobs_BT: float32, the sampler's log-probabilities with temperature only.
        rewards_B: float32, 0 where `valid_B` is False. components_BR: float32, one column per `component_names`.
        verdict_rewards_B: float32, the verifier's rewards, which shaping leaves as they are.
        valid_B: bool, False where the verdict was an error: the row is in no statistic at all.
        truncated_B: bool, True where the completion was cut at the length limit.
        group_ids_B: int64, index of the prompt in the rollout step, over all ranks.
        sequence_ids_B: int64, group id * G + sample index: the global order of sequences.
        versions_B: int64, version of the weights that sampled the row.
        prompt_lengths_B: int64, tokens of the prompt; what follows, up to the padding, is the completion, whatever the mask.
        token_weights_BT: float32, weights that verifiers supplied, 1 where one supplied none; None if none did on any rank.
    """

    token_ids_BT: Tensor
    attention_mask_BT: Tensor
    loss_mask_BT: Tensor
    behaviour_logprobs_BT: Tensor
    raw_logprobs_BT: Tensor
    rewards_B: Tensor
    verdict_rewards_B: Tensor
    components_BR: Tensor
    valid_B: Tensor
    truncated_B: Tensor
    group_ids_B: Tensor
    sequence_ids_B: Tensor
    versions_B: Tensor
    prompt_lengths_B: Tensor
    component_names: tuple[str, ...] = ()
    token_weights_BT: Tensor | None = None

    @property
    def num_sequences(self) -> int:
        """Rows of this rank, masked ones included."""
        return int(self.token_ids_BT.shape[0])

    @property
    def longest(self) -> int:
        """Columns that are not padding in every row; at least 2, so that a row without trained tokens can be scored."""
        return max(2, int(self.attention_mask_BT.sum(1).max())) if self.num_sequences else 2

    @property
    def lengths_B(self) -> Tensor:
        """Tokens of each completion, int64, those that left the loss mask included."""
        return self.attention_mask_BT.sum(1) - self.prompt_lengths_B


def with_mask(batch: RolloutBatch, mask_BT: Tensor) -> RolloutBatch:
    """The batch with a smaller loss mask, its log-probabilities 0 outside it."""
    return dataclasses.replace(
        batch,
        loss_mask_BT=mask_BT,
        behaviour_logprobs_BT=batch.behaviour_logprobs_BT * mask_BT,
        raw_logprobs_BT=batch.raw_logprobs_BT * mask_BT,
    )


@dataclass(frozen=True, kw_only=True)
class TokenScores(TensorStruct):
    """What a model says of the tokens of some rows; 0 where the loss mask is False.

    Attributes:
        logprobs_BT: float32 (float64 for float64 models), nats, at the sampling temperature.
        entropies_BT: nats, or None unless `Need.ENTROPY`.
        hidden_ND: the LM head's input that predicted each trained token, rows in order, tokens in order, no padding; or None.
        sum_p_squared_BT: sum over the vocabulary of p squared, or None.
        reference_logprobs_BT: under the frozen reference policy, or None.
    """

    logprobs_BT: Tensor
    entropies_BT: Tensor | None = None
    hidden_ND: Tensor | None = None
    sum_p_squared_BT: Tensor | None = None
    reference_logprobs_BT: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Credit(TensorStruct):
    """Token advantage = scale * A + shift. Detached; 0 outside the mask. `shift_BT` is None for multiplicative credit."""

    scale_BT: Tensor
    shift_BT: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Correction(TensorStruct):
    """Importance weights and the mask that is left, both [B, T]; the mask is never larger than the batch's."""

    weights_BT: Tensor
    mask_BT: Tensor


@dataclass(frozen=True, kw_only=True)
class Experience(TensorStruct):
    """A credited batch: all that a loss may read.

    Attributes:
        batch: the rollouts, their mask final.
        advantages: raw advantages, [B] or [B, T]; never multiplied by credit.
        credit: scale and shift per token.
        correction_BT: importance weights, 1 without a correction.
        old_logprobs_BT: nats, under theta_old. reference_logprobs_BT: nats, or None.
    """

    batch: RolloutBatch
    advantages: Tensor
    credit: Credit
    correction_BT: Tensor
    old_logprobs_BT: Tensor
    reference_logprobs_BT: Tensor | None = None

    def cut(self, length: int) -> Experience:
        """See `TensorStruct.cut`; advantages per token are cut too."""
        shorter = super().cut(length)
        wide = self.advantages.ndim == 2
        return dataclasses.replace(shorter, advantages=self.advantages[:, :length]) if wide else shorter

    @property
    def raw_advantages_BT(self) -> Tensor:
        """A broadcast to [B, T], 0 outside the mask."""
        wide = self.advantages if self.advantages.ndim == 2 else self.advantages[:, None]
        return wide * self.batch.loss_mask_BT

    @property
    def token_advantages_BT(self) -> Tensor:
        """scale * A + shift, [B, T], 0 outside the mask."""
        scaled = self.credit.scale_BT * self.raw_advantages_BT
        shift = self.credit.shift_BT
        return scaled if shift is None else (scaled + shift) * self.batch.loss_mask_BT


@dataclass(frozen=True, kw_only=True)
class StepTotals:
    """Denominators of one optimiser step: over all its micro-batches and all ranks.

    Attributes:
        tokens: trained tokens. sequences: rows with at least one trained token. groups: prompts with at least one.
        credit: sum of the credit scale over trained tokens.
    """

    tokens: float
    sequences: float
    groups: float
    credit: float


@dataclass(frozen=True, kw_only=True)
class Statistics(TensorStruct):
    """What a weighting or a loss computed over the whole mini-batch before its totals.

    Attributes:
        values: 0-dim tensors by name (quantiles, means).
        keep_BT: bool, rows of the mini-batch; tokens that are False leave the loss mask and the totals. A part gives one at
            every update, on every rank, or never; by the time of `weights` and `per_token` the mask has shrunk.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    keep_BT: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class SyncReceipt:
    """Proof of a weight update: the version now served, tensors and bytes received, seconds taken."""

    version: int
    num_tensors: int
    num_bytes: int
    seconds: float
