"""What parts see of a rollout batch: one scoring pass, its scores cached or computed again, and sums over ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from delta_lightning.functional.random import keyed_uniform, stable_hash
from delta_lightning.interfaces import Head
from delta_lightning.models.in_step import in_step
from delta_lightning.models.scorer import Scorer
from delta_lightning.trainer.cache import HiddenCache, Place
from delta_lightning.trainer.memory import bounded, is_out_of_memory, micro_batches, sizes_of
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Need, RolloutBatch, TokenScores, with_mask


class RolloutView:
    """`interfaces.StepView` of the rows of this rank.

    The scoring pass runs once, at the first use of `passes()`, over exactly the micro-batches that training will use: the
    first update then sees bitwise the same log-probabilities, and a first ratio of exactly 1. The reference policy scores the
    same micro-batches in the same pass.
    """

    def __init__(
        self,
        batch: RolloutBatch,
        *,
        micro: Sequence[slice],
        scorer: Scorer,
        needs: frozenset[Need],
        cache: HiddenCache,
        ranks: Ranks,
        seed: tuple[int, int],
        tick: Callable[[int, int], None] | None = None,
        reference: Scorer | None = None,
    ) -> None:
        self._batch, self._micro, self._scorer, self._needs = batch, micro, scorer, needs
        self._cache, self._ranks, self._seed, self._tick = cache, ranks, seed, tick
        self._reference = reference if Need.REFERENCE in needs else None
        self._advantages: Tensor | None = None
        self._scores: list[TokenScores] | None = None
        tokens = int(batch.loss_mask_BT.sum())
        self.cache_place = cache.place(tokens, scorer, ranks) if Need.HIDDEN in needs else Place.RECOMPUTED
        self.caches_hidden = self.cache_place is not Place.RECOMPUTED
        self.cache_bytes = cache.bytes(tokens, scorer) if self.caches_hidden else 0

    @property
    def batch(self) -> RolloutBatch:
        """The rows of this rank."""
        return self._batch

    @property
    def advantages(self) -> Tensor | None:
        """[B] or [B, T]; None before the estimator ran."""
        return self._advantages

    def set_advantages(self, advantages: Tensor) -> None:
        """Called once, by the step, between estimator and credit."""
        self._advantages = advantages

    def shrink(self, mask_BT: Tensor) -> None:
        """Replaces the loss mask by a smaller one (a correction's) in the batch and in all cached scores."""
        kept: list[TokenScores] = []
        for part, scores in zip(self._micro, self._score(), strict=True):
            if scores.hidden_ND is not None:
                still = mask_BT[part][self._batch.loss_mask_BT[part]]
                scores = replace(scores, hidden_ND=scores.hidden_ND[still.to(scores.hidden_ND.device)])
            kept.append(remasked(scores, mask_BT[part]))
        self._scores = kept
        self._batch = with_mask(self._batch, mask_BT)

    def shrunk(self, mask_BT: Tensor) -> RolloutView:
        """A view of the same scores with a smaller loss mask."""
        other = copy(self)
        other.shrink(mask_BT)
        return other

    def passes(self) -> Iterator[tuple[slice, TokenScores]]:
        """Scores micro-batch by micro-batch, empty ones left out; [B, T] fields span the batch's full width."""
        for part, scores in zip(self._micro, self._score(), strict=True):
            hidden_ND = scores.hidden_ND
            if Need.HIDDEN in self._needs and not self.caches_hidden:
                hidden_ND = self._kept(self._forward(part))  # empty ones too, so that sharded ranks stay in step
            if part.start < part.stop:
                yield part, replace(scores, hidden_ND=None if hidden_ND is None else hidden_ND.to(self._scorer.device))

    def logprobs_BT(self) -> Tensor:
        """Log-probabilities of all rows, [B, T]."""
        return self._joined([one.logprobs_BT for one in self._score()])

    def reference_logprobs_BT(self) -> Tensor | None:
        """Log-probabilities of all rows under the reference policy, [B, T]; None without one."""
        values = [one.reference_logprobs_BT for one in self._score()]
        return None if self._reference is None else self._joined([value for value in values if value is not None])

    def _joined(self, values: Sequence[Tensor]) -> Tensor:
        out = torch.zeros_like(self._batch.raw_logprobs_BT)
        if values:
            out = out.to(values[0].dtype)
        for part, value in zip(self._micro, values, strict=True):
            out[part] = value
        return out * self._batch.loss_mask_BT

    def all_sum(self, value: Tensor) -> Tensor:
        """Sum over data-parallel ranks."""
        return self._ranks.all_sum(value)

    @property
    def step(self) -> int:
        """Number of the rollout step."""
        return self._seed[1]

    def gather(self, value_N: Tensor) -> Tensor:
        """Trained tokens of all ranks in the global order of sequences and positions."""
        keys = torch.cat(self._ranks.all_rows(self._keys_N()))
        values = torch.cat(self._ranks.all_rows(value_N))
        return values[keys.argsort()]

    def own(self, value_N: Tensor) -> Tensor:
        """This rank's trained tokens out of all ranks' in the global order."""
        keys = torch.cat(self._ranks.all_rows(self._keys_N())).sort().values
        return value_N[torch.searchsorted(keys, self._keys_N())]

    def _keys_N(self) -> Tensor:
        """Each trained token's place in the global order: sequence id, then position."""
        mask_BT = self._batch.loss_mask_BT
        columns_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
        return ((self._batch.sequence_ids_B[:, None] << 32) + columns_T)[mask_BT]

    def uniform(self, purpose: str) -> Tensor:
        """[B, T] in (0, 1), keyed by run seed, step, purpose, sequence id and position."""
        base = stable_hash(*self._seed, purpose)
        batch = self._batch
        positions = torch.arange(batch.token_ids_BT.shape[1], device=batch.sequence_ids_B.device)
        return keyed_uniform(batch.sequence_ids_B ^ base, positions)

    def head(self) -> AbstractContextManager[Head]:
        """The LM head."""
        return self._scorer.head()

    def _score(self) -> list[TokenScores]:
        """The one scoring pass; every micro-batch runs, empty ones too, so that sharded ranks stay in step.

        Raises `OutOfMemory`, on every rank unless one of them could not gather parameters.
        """
        if self._scores is None:
            models = [one.model for _ in self._micro for one in (self._scorer, self._reference) if one is not None]
            with bounded(self._told, self._ranks), in_step(models, is_out_of_memory):
                self._scores = self._all_scored()
        return self._scores

    def _all_scored(self) -> list[TokenScores]:  # a frame of its own: what it holds is let go when memory runs out
        return [self._scored(index, part) for index, part in enumerate(self._micro)]

    def _told(self) -> tuple[str, str]:
        return micro_batches("scoring", sizes_of(self._batch, self._micro, self._scorer.layout))

    def _scored(self, index: int, part: slice) -> TokenScores:
        scores = self._referenced(self._forward(part), part)
        if self._tick is not None:
            self._tick(index + 1, len(self._micro))
        return replace(scores, hidden_ND=self._kept(scores) if self.caches_hidden else None)

    def _kept(self, scores: TokenScores) -> Tensor | None:
        """Hidden states as the cache keeps them: rounded the same way whether they are kept or computed again."""
        return None if scores.hidden_ND is None else self._cache.store(scores.hidden_ND, self.cache_place)

    @torch.no_grad()
    def _referenced(self, scores: TokenScores, part: slice) -> TokenScores:
        if self._reference is None:
            return scores
        theirs = self._reference.score(trimmed(self._batch.rows(part)), frozenset())
        width = self._batch.token_ids_BT.shape[1]
        return replace(scores, reference_logprobs_BT=widened(theirs, width).logprobs_BT)

    @torch.no_grad()
    def _forward(self, part: slice) -> TokenScores:
        rows = trimmed(self._batch.rows(part))
        return widened(self._scorer.score(rows, self._needs), self._batch.token_ids_BT.shape[1])


def trimmed(batch: RolloutBatch) -> RolloutBatch:
    """The batch without the columns that are padding in every row."""
    return batch.cut(batch.longest)


def remasked(scores: TokenScores, mask_BT: Tensor) -> TokenScores:
    """Scores that are 0 outside a smaller mask; hidden states are the caller's."""

    def cut(value: Tensor | None) -> Tensor | None:
        return None if value is None else value * mask_BT

    return replace(
        scores,
        logprobs_BT=scores.logprobs_BT * mask_BT,
        entropies_BT=cut(scores.entropies_BT),
        sum_p_squared_BT=cut(scores.sum_p_squared_BT),
        reference_logprobs_BT=cut(scores.reference_logprobs_BT),
    )


def widened(scores: TokenScores, length: int) -> TokenScores:
    """Scores padded on the right with zeros to `length` positions."""

    def pad(value: Tensor | None) -> Tensor | None:
        return None if value is None else torch.nn.functional.pad(value, (0, length - value.shape[1]))

    padded = pad(scores.logprobs_BT)
    assert padded is not None
    return replace(
        scores, logprobs_BT=padded, entropies_BT=pad(scores.entropies_BT), sum_p_squared_BT=pad(scores.sum_p_squared_BT)
    )
