"""The seams: abstract classes of one or two methods, each with its laws.

A part is a frozen, keyword-only dataclass that subclasses its seam. `tests/contract/` holds every part to the laws below.
`needs()` is a method and not an attribute: an annotated class attribute on a seam would disable type checks of its parts.
Importing this file does not import torch, so that verifier processes stay light.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from delta_lightning.types import (
    Completion,
    Correction,
    Credit,
    Example,
    Experience,
    Need,
    Problem,
    Prompt,
    RolloutBatch,
    SamplingParams,
    Statistics,
    StepTotals,
    SyncReceipt,
    TokenScores,
    Verdict,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NOTHING: frozenset[Need] = frozenset()


class Head(Protocol):
    """The LM head, whole, for the length of a `with view.head()` block."""

    @property
    def weight_VD(self) -> Tensor:
        """The head's weight."""
        ...

    def logits(self, hidden_ND: Tensor, vocabulary: slice = slice(None)) -> Tensor:
        """[N, D] -> [N, V] at the sampling temperature, or those of some tokens of the vocabulary. The caller keeps N small."""
        ...


class StepView(Protocol):
    """What a part sees of one rollout batch, under theta_old (or of one mini-batch, under the current policy).

    Laws: `passes()` may be iterated again and yields the same values in the same order; slices are contiguous, disjoint and
    cover every row of this rank in order; a part cannot tell a cache from a recomputation, nor one cut into micro-batches from
    another.
    """

    @property
    def step(self) -> int:
        """Number of the rollout step, from 0: for schedules."""
        ...

    @property
    def batch(self) -> RolloutBatch:
        """The rows of this rank."""
        ...

    @property
    def advantages(self) -> Tensor | None:
        """[B] or [B, T]; None before the estimator ran."""
        ...

    def passes(self) -> Iterator[tuple[slice, TokenScores]]:
        """Scores micro-batch by micro-batch, with the rows they belong to."""
        ...

    def all_sum(self, value: Tensor) -> Tensor:
        """Sum over data-parallel ranks; identity on one. Collective: every rank calls it, in the same order."""
        ...

    def gather(self, value_N: Tensor) -> Tensor:
        """The trained tokens' values of all ranks, in the global order of sequences and positions. Collective."""
        ...

    def own(self, value_N: Tensor) -> Tensor:
        """The inverse of `gather`: this rank's tokens out of one value per token of all ranks, in global order. Collective."""
        ...

    def uniform(self, purpose: str) -> Tensor:
        """[B, T] uniform numbers in (0, 1), keyed by run seed, step, purpose, sequence id and position: rank-free."""
        ...

    def head(self) -> AbstractContextManager[Head]:
        """The LM head, for parts that declared `Need.HEAD`. Collective under sharding."""
        ...


class PromptSource(ABC):
    """Where problems come from.

    Laws: the same fields give the same problems in the same order; ids are unique; "train" and "held_out" share no problem.
    """

    @abstractmethod
    def check(self) -> None:
        """Refuse a missing or malformed file before anything heavy loads. Raises `ConfigError`."""

    @abstractmethod
    def problems(self, split: str) -> Sequence[Problem]:
        """All problems of `split`, "train" or "held_out". Raises `ConfigError` for rows that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class SamplerContext:
    """What a sampler may build its engine from.

    Attributes:
        model: the training model, a `transformers` causal LM, for engines that sample from it in place.
        tokenizer: its tokenizer. device: of this rank. rank, world_size: data-parallel.
        tick: called between decoding steps with (finished, total) completions; it may raise to interrupt.
    """

    model: Any
    tokenizer: Any
    device: torch.device
    rank: int = 0
    world_size: int = 1
    tick: Callable[[int, int], None] | None = None


class SamplerSession(ABC):
    """A running engine.

    Laws: `num_completions` for each prompt, each with its version; `logprobs` are of the distribution really sampled from and
    `raw_logprobs` match the scorer; requests in flight are drained before weights change; every rank exhausts `weights`;
    the same prompts, seed and weights give the same completions, whatever the rank or the order of prompts.
    """

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        """Completions in the order in which they finish. The model is the engine's until the generator ends or is closed."""

    @abstractmethod
    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Log-probabilities (temperature 1) of tokens 1.. of each given sequence: the probe that proves a weight update."""

    @abstractmethod
    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        """Serve the given weights from now on."""

    @abstractmethod
    def close(self) -> None:
        """Free the engine. May be called twice."""


class Sampler(ABC):
    """Options of an engine; `open` starts it."""

    def check(self) -> Sequence[str]:
        """Refuse a machine without what the engine needs, before anything loads; lines for people. Raises `ConfigError`."""
        return ()

    @abstractmethod
    def open(self, context: SamplerContext) -> SamplerSession:
        """Start the engine."""


class Verifier(ABC):
    """Judges one completion. Runs in worker processes: it must pickle and must not need torch.

    Laws: same input, same verdict (time-outs and remote judges excepted, and they say so); any string gives a verdict, never
    an exception; the verifier's own failure is `Status.ERROR`, a service that is away `Status.UNAVAILABLE`, and neither ever
    a reward of 0.
    """

    @abstractmethod
    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """The verdict on one completion."""

    def reference_fields(self) -> frozenset[str]:
        """Keys of `Prompt.reference` that `score` reads; checked against the data when a run starts."""
        return frozenset({"answer"})

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """Why this reference cannot be used (an answer that does not parse), or None. Called once a row, at load."""
        return None

    def check(self) -> Sequence[str]:
        """Refuse what cannot work on this machine: a package, sandbox or service that is missing.

        Called once, in the trainer's process, before anything heavy loads. Returns lines for people: what it found, and what
        that guarantees. Raises `ConfigError`.
        """
        return ()

    def limit_seconds(self) -> float | None:
        """Most seconds that the verifier's own time limits allow one `score`, None without any. The pool's must be longer."""
        return None

    def route(self, source: str) -> Verifier:
        """What judges the problems of that data set: itself, unless it dispatches by source. Raises `ConfigError` for none."""
        return self

    def examples(self) -> tuple[Example, ...]:
        """What `delta-lightning check` tries: one that is CORRECT where that is possible, and one that is not.

        They may depend on the fields. Without any, a reference must be given there.
        """
        return ()

    def warm_up(self) -> None:  # noqa: B027 -- a hook, not a duty
        """Import and build what is heavy. Called once in each worker process, before any time limit runs."""


class RewardShaping(ABC):
    """Changes rewards before anything reads them: a penalty on length, for example.

    Laws: finite, without gradient; rows with `valid_B` False keep 0; permuting rows permutes the result; independent of padding
    and of the number of ranks.
    """

    @abstractmethod
    def rewards(self, batch: RolloutBatch) -> Tensor:
        """[B], in the dtype of `batch.rewards_B`."""


class RolloutFilter(ABC):
    """Decides which groups and tokens are trained on.

    Laws: never enlarges the mask; idempotent; gives the same decision on any number of ranks.
    """

    @abstractmethod
    def keep_groups(self, batch: RolloutBatch) -> Tensor:
        """[P] bool, in the order of the distinct group ids of this rank, ascending: which prompts to keep."""

    @abstractmethod
    def apply(self, batch: RolloutBatch) -> RolloutBatch:
        """The batch with its mask shrunk."""


class AdvantageEstimator(ABC):
    """Reward -> advantage.

    Laws: finite, without gradient; permuting rows permutes the result; rows with `valid_B` False get 0 and enter no
    statistic; whitening goes through `view.all_sum`. Groups are whole on a rank.
    """

    @abstractmethod
    def advantages(self, view: StepView) -> Tensor:
        """[B], or [B, T] for estimators with a baseline per token."""

    def needs(self) -> frozenset[Need]:
        """What must be computed first; `Need.SCORES` puts the scoring pass before the estimator."""
        return NOTHING

    def min_completions(self) -> int:
        """Fewest completions per prompt with which the estimator gives any signal."""
        return 1

    def per_token(self) -> bool:
        """True if the estimator gives [B, T]; parts that need one advantage per response refuse it."""
        return False


class RolloutCorrection(ABC):
    """Corrects the difference between sampler and trainer.

    Laws: detached, finite, 0 outside the mask, mask never enlarged, independent of the cut into micro-batches and ranks.
    """

    @abstractmethod
    def correct(self, view: StepView) -> Correction:
        """Weights [B, T] and the mask that is left."""

    def needs(self) -> frozenset[Need]:
        """What the scoring pass must compute."""
        return NOTHING


class CreditAssigner(ABC):
    """How much each token counts, fixed under theta_old for all updates of the rollout batch.

    Laws: detached, finite, 0 outside the mask; independent of the cut: any micro-batching, any split over ranks and any
    padding give the same result, unless `cut_dependent()`.
    """

    @abstractmethod
    def credit(self, view: StepView) -> Credit:
        """Scale [B, T] and shift [B, T] or None."""

    def needs(self) -> frozenset[Need]:
        """What the scoring pass must compute."""
        return NOTHING

    def cut_dependent(self) -> bool:
        """True for parts that are deliberately local to a rank, for fidelity to other code."""
        return False

    def token_level(self) -> bool:
        """True if two tokens of one sequence may get different credit; losses that erase it refuse such a part."""
        return True

    def per_response(self) -> bool:
        """True if the part needs one advantage per response, [B], and refuses an estimator that gives [B, T]."""
        return False

    def additive(self) -> bool:
        """True if the part gives a shift, which may turn the sign of a token's advantage."""
        return False


class TokenWeighting(ABC):
    """Weights that follow the current policy, at every update. Row-local given their statistics; detached."""

    def statistics(self, experience: Experience, view: StepView) -> Statistics | None:
        """A pass over the mini-batch, before its totals; may shrink the mask. Only with `Need.MINI_BATCH`.

        Args:
            experience: the rows of the mini-batch. view: the same rows, its passes under the current policy.
        """
        return None

    def token_level(self) -> bool:
        """True if two tokens of one sequence may get different weights; losses that erase token credit refuse such a part."""
        return True

    @abstractmethod
    def weights(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T], multiplied with the per-token loss."""

    def needs(self) -> frozenset[Need]:
        """What the forward pass of each update must compute."""
        return NOTHING


class PolicyLoss(ABC):
    """Per-token loss, not reduced.

    Laws: row-local given its statistics; 0 outside the mask; at ratio 1 its gradient is -A grad log p, up to the reduction.
    """

    def statistics(self, experience: Experience, view: StepView) -> Statistics | None:
        """A pass over the mini-batch, before its totals; may shrink the mask. Only with `Need.MINI_BATCH`.

        Args:
            experience: the rows of the mini-batch. view: the same rows, its passes under the current policy.
        """
        return None

    @abstractmethod
    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T]; reads `experience.token_advantages_BT`."""

    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        """Named [B, T] values whose token mean is logged, for example the share of clipped tokens."""
        return {}

    def needs(self) -> frozenset[Need]:
        """What the forward pass of each update must compute."""
        return NOTHING

    def erases_token_credit(self) -> bool:
        """True if only the mean credit of a sequence survives; such a loss refuses token-level credit."""
        return False

    def single_signed(self) -> bool:
        """True if all token advantages of a sequence must have one sign; such a loss refuses additive credit."""
        return False


class Penalty(ABC):
    """An additive per-token term: KL to a reference, an entropy bonus. Row-local."""

    @abstractmethod
    def per_token(self, experience: Experience, scores: TokenScores) -> Tensor:
        """[B, T], coefficient included."""

    def needs(self) -> frozenset[Need]:
        """What the scoring pass or the update's forward pass must compute."""
        return NOTHING


class Reduction(ABC):
    """Turns per-token losses into one number: the sum of weight * loss over micro-batches and ranks is the loss.

    Laws: weights of the parts equal the part of the weights (no local count anywhere); 0 outside the mask; all-masked
    gives 0, not NaN.
    """

    @abstractmethod
    def weights(self, experience: Experience, totals: StepTotals) -> Tensor:
        """[B, T]."""
