"""What credit takes beside the cached hidden states: the assigner runs on made-up tokens of the model's width."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from delta_lightning.functional.random import keyed_uniform, stable_hash
from delta_lightning.functional.sides import BLOCK_ELEMENTS
from delta_lightning.interfaces import CreditAssigner, Head
from delta_lightning.models.scorer import WholeHead
from delta_lightning.planning.meter import LiveBytes
from delta_lightning.types import Need, RolloutBatch, TokenScores

ROWS, VOCABULARY = 8, 256  # rows of a trial, of which half are right answers
SMALL = {"logits_mib": 1, "block_mib": 32}  # budgets of parts that read the LM head, in a trial


@dataclass(frozen=True, kw_only=True)
class CreditCost:
    """Bytes of credit for N tokens of width D on a rank, n in a micro-batch: block min(1, n D / 2^20) + per_token N + head.

    Attributes:
        block: of the temporaries of a block of rows, `functional.sides.BLOCK_ELEMENTS` elements; 0 of parts that read the LM
            head. per_token: of vectors and features. head: of parts that read the LM head, their temporaries in full
            however few tokens there are: they are bounded from above.
    """

    block: int
    per_token: float
    head: int

    def bytes(self, tokens: int, at_once: int, hidden: int) -> int:
        """For so many tokens, `at_once` in a micro-batch."""
        filled = min(1.0, at_once * hidden / BLOCK_ELEMENTS)
        return round(self.block * filled + self.per_token * tokens) + self.head


class TrialView:
    """`interfaces.StepView` of `ROWS` random rows of `length` tokens with hidden states of width `hidden`."""

    step = 0

    def __init__(self, assigner: CreditAssigner, length: int, hidden: int, dtype: torch.dtype) -> None:
        shape = (ROWS, length + 1)
        mask_BT = torch.ones(shape, dtype=torch.bool)
        mask_BT[:, 0] = False
        right_B = torch.arange(ROWS) % 2
        values_BT = -torch.rand(shape, generator=torch.Generator().manual_seed(0)) * mask_BT
        self.batch = RolloutBatch(
            token_ids_BT=torch.ones(shape, dtype=torch.int64), attention_mask_BT=torch.ones_like(mask_BT),
            loss_mask_BT=mask_BT, behaviour_logprobs_BT=values_BT, raw_logprobs_BT=values_BT, rewards_B=right_B.float(),
            verdict_rewards_B=right_B.float(), components_BR=torch.zeros(ROWS, 0), valid_B=torch.ones(ROWS, dtype=torch.bool),
            truncated_B=torch.zeros(ROWS, dtype=torch.bool), group_ids_B=torch.zeros(ROWS, dtype=torch.int64),
            sequence_ids_B=torch.arange(ROWS), versions_B=torch.zeros(ROWS, dtype=torch.int64),
            prompt_lengths_B=torch.ones(ROWS, dtype=torch.int64), component_names=(),
        )  # fmt: skip
        self.advantages = right_B * 2.0 - 1.0
        self._scores = TokenScores(
            logprobs_BT=values_BT, entropies_BT=-values_BT, sum_p_squared_BT=-values_BT, reference_logprobs_BT=values_BT,
            hidden_ND=torch.randn(ROWS * length, hidden, generator=torch.Generator().manual_seed(1)).to(dtype),
        )  # fmt: skip
        self._weight_VD = torch.randn(VOCABULARY, hidden, generator=torch.Generator().manual_seed(2)).to(dtype)

    def passes(self) -> Iterator[tuple[slice, TokenScores]]:
        """All rows at once, from the cache."""
        yield slice(0, ROWS), self._scores

    def all_sum(self, value: Tensor) -> Tensor:
        """One rank."""
        return value

    def gather(self, value_N: Tensor) -> Tensor:
        """One rank."""
        return value_N

    def own(self, value_N: Tensor) -> Tensor:
        """One rank."""
        return value_N

    def uniform(self, purpose: str) -> Tensor:
        """Keyed by purpose, sequence id and position."""
        return keyed_uniform(self.batch.sequence_ids_B ^ stable_hash(purpose), torch.arange(self.batch.token_ids_BT.shape[1]))

    def head(self) -> AbstractContextManager[Head]:
        """A small one."""
        return nullcontext(WholeHead(weight_VD=self._weight_VD, temperature=1.0))

    def tensors(self) -> list[Tensor]:
        """Everything that is there before credit."""
        given = [*vars(self.batch).values(), *vars(self._scores).values(), self.advantages, self._weight_VD]
        return [value for value in given if isinstance(value, Tensor)]


def credit_cost(assigner: CreditAssigner, *, hidden: int, vocabulary: int, dtype: torch.dtype, copies_head: bool) -> CreditCost:
    """The slope and the offset of the peak between two trials of an assigner.

    The head's share follows the assigner's own budgets where they are larger than a trial's: three times what `logits_mib` and
    `block_mib` are more, a float32 copy of the head where it is narrower, 4 V D, and, sharded, the gathered head itself.
    """
    lengths = tuple(max(1, scale * BLOCK_ELEMENTS // hidden // ROWS) for scale in (4, 8))  # a few blocks of rows each
    peaks = []
    for length in lengths:
        view = TrialView(assigner, length, hidden, dtype)
        with LiveBytes(view.tensors()) as meter, torch.no_grad():
            _with_budgets(assigner, SMALL).credit(view)
        peaks.append(meter.peak)
    slope = (peaks[1] - peaks[0]) / (ROWS * (lengths[1] - lengths[0]))
    fixed = max(0, round(peaks[0] - slope * ROWS * lengths[0]))
    if Need.HEAD not in assigner.needs():
        return CreditCost(block=fixed, per_token=slope, head=0)
    budgets = _budgets(assigner)
    narrow, weight = dtype.itemsize < 4, vocabulary * hidden
    head = sum(3 * max(0, budgets[name] - small) << 20 for name, small in SMALL.items())
    head += 4 * weight * narrow * (not budgets["block_mib"]) + weight * dtype.itemsize * copies_head
    return CreditCost(block=0, per_token=slope, head=fixed + head)


def _budgets(part: object) -> dict[str, int]:
    """The largest `logits_mib` and `block_mib` of a part and the parts within."""
    found = {name: int(getattr(part, name, 0)) for name in SMALL}
    for inner in _inner(part).values():
        for one in inner if isinstance(inner, tuple) else (inner,):
            found = {name: max(size, _budgets(one)[name]) for name, size in found.items()}
    return found


def _with_budgets(part: Any, budgets: dict[str, int]) -> Any:
    """The part with other budgets, those of the parts within too."""
    if isinstance(part, tuple):
        return tuple(_with_budgets(one, budgets) for one in part)
    changed = {name: size for name, size in budgets.items() if hasattr(part, name)}
    changed |= {name: _with_budgets(inner, budgets) for name, inner in _inner(part).items()}
    return replace(part, **changed) if changed else part


def _inner(part: object) -> dict[str, Any]:
    """The parts, and tuples of parts, that the fields of a part hold."""
    values = {item.name: getattr(part, item.name) for item in fields(part)} if is_dataclass(part) else {}
    return {
        name: value for name, value in values.items()
        if is_dataclass(value) or (isinstance(value, tuple) and value and all(map(is_dataclass, value)))
    }  # fmt: skip
