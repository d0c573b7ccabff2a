"""The seams of the objective: advantage, correction, credit, weighting, loss, penalty and reduction, and what they see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from delta_lightning.types import (
    Correction,
    Credit,
    Experience,
    Need,
    RolloutBatch,
    Statistics,
    StepTotals,
    TokenScores,
)

if TYPE_CHECKING:
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

    def corrects(self) -> bool:
        """False if it leaves every token as it is, however far sampler and trainer are apart."""
        return True

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
