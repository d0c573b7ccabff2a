"""Which tokens a wrapper compares: those of the rollout step, a side, a prompt's group, or a sequence; on all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.logprobs import scatter_tokens
from delta_lightning.functional.sides import group_units
from delta_lightning.functional.token_order import top_share
from delta_lightning.interfaces import StepView

Scope = Literal["batch", "side", "group", "sequence"]
"""All trained tokens; those with A > 0, A < 0 and A = 0 each for themselves; those of a prompt; those of a response."""


def check_scope(part: str, scope: str) -> None:
    """Raises `ConfigError` for a scope that is none."""
    wanted = "batch, side, group or sequence"
    require(scope in _UNITS, f"credit.{part}.scope", wanted=wanted, got=scope, remedy="See docs/credit_wrappers.md.")


def advantages_of(view: StepView) -> Tensor:
    """Raw advantages as [B, 1] or [B, T]."""
    advantages = view.advantages
    if advantages is None:
        raise ValueError("credit: the advantages must be known before credit is assigned")
    return advantages if advantages.ndim == 2 else advantages[:, None]


def scope_means(view: StepView, scope: Scope, *values_BT: Tensor) -> tuple[Tensor, ...]:
    """Each value's mean over the trained tokens of a token's scope; float64, shaped so that it broadcasts to [B, T].

    0 where a scope has no token. Values must be 0 outside the mask. Sums are in float64, over all ranks.
    """
    *totals, counts = _SUMS[scope](view, [*values_BT, view.batch.loss_mask_BT])
    return tuple(total / counts.clamp(min=1) for total in totals)


def across_ranks(view: StepView, scope: Scope, function: Callable[..., Tensor], *values_BT: Tensor) -> Tensor:
    """`function(units_N, *values_N)` of all ranks' trained tokens in the global order, back as [B, T], 0 elsewhere.

    Sequences lie whole on a rank, so `sequence` hands over this rank's tokens only, and needs no collective. The other scopes
    hold one number per token of all ranks, three or four times.
    """
    mask_BT = view.batch.loss_mask_BT
    vectors = [value.expand(mask_BT.shape)[mask_BT] for value in (_UNITS[scope](view), *values_BT)]
    if scope == "sequence":
        return scatter_tokens(function(*vectors), mask_BT)
    return scatter_tokens(view.own(function(*[view.gather(vector) for vector in vectors])), mask_BT)


Denominator = Literal["kept", "all"]


def check_selection(part: str, share: float, denominator: str, *, remedy: str) -> None:
    """Raises `ConfigError` for a share of tokens outside (0, 1] or a denominator that is none."""
    require(0 < share <= 1, f"credit.{part}.share", wanted="above 0, at most 1", got=share, remedy=remedy)
    require(denominator in ("kept", "all"), f"credit.{part}.denominator", wanted="kept or all", got=denominator,
            remedy="Use kept, so that the step does not shrink with the share.")  # fmt: skip


def kept_share(view: StepView, scope: Scope, scores_BT: Tensor, share: float) -> Tensor:
    """[B, T] bool: the ceil(share n) largest scores of each scope of n tokens; of ties the first in the global order."""
    return across_ranks(view, scope, lambda units_N, scores_N: top_share(scores_N, units_N, share), scores_BT)


def kept_scale(view: StepView, kept_BT: Tensor, denominator: Denominator, dtype: torch.dtype) -> Tensor:
    """[B, T]: N / kept ("kept"; both counted over all ranks) or 1 ("all") on the kept tokens, 0 elsewhere."""
    counts = view.all_sum(torch.stack([view.batch.loss_mask_BT.sum(), kept_BT.sum()]).double())
    factor = counts[0] / counts[1].clamp(min=1) if denominator == "kept" else counts.new_ones(())
    return kept_BT * factor.to(dtype)


def _zeros(view: StepView) -> Tensor:
    return torch.zeros_like(view.batch.sequence_ids_B)[:, None]


def _signs(view: StepView) -> Tensor:
    """0, 1, 2 where A is below, at and above 0."""
    return advantages_of(view).sign().long() + 1


def _groups(view: StepView) -> Tensor:
    return view.batch.group_ids_B[:, None]


def _sequences(view: StepView) -> Tensor:
    return view.batch.sequence_ids_B[:, None]


def _batch_sums(view: StepView, values: list[Tensor]) -> Tensor:
    return view.all_sum(torch.stack([value.sum(dtype=torch.float64) for value in values]))[:, None, None]


def _side_sums(view: StepView, values: list[Tensor]) -> Tensor:
    signs = _signs(view)
    cells = [[(value * (signs == side)).sum(dtype=torch.float64) for side in range(3)] for value in values]
    totals_KS = view.all_sum(torch.stack([torch.stack(row) for row in cells]))
    return totals_KS[:, signs]


def _group_sums(view: StepView, values: list[Tensor]) -> Tensor:
    """A product with a one-hot matrix: unlike atomic additions it gives the same bits each time."""
    units_B, count = group_units(view.batch.group_ids_B, all_sum=view.all_sum)
    one_hot_BU = (units_B[:, None] == torch.arange(count, device=units_B.device)).double()
    rows_KB = torch.stack([value.sum(1, dtype=torch.float64) for value in values])
    return view.all_sum(rows_KB @ one_hot_BU)[:, units_B, None]


def _sequence_sums(view: StepView, values: list[Tensor]) -> Tensor:
    return torch.stack([value.sum(1, keepdim=True, dtype=torch.float64) for value in values])


_UNITS: dict[str, Callable[[StepView], Tensor]] = {"batch": _zeros, "side": _signs, "group": _groups, "sequence": _sequences}
_SUMS: dict[str, Callable[[StepView, list[Tensor]], Tensor]] = {
    "batch": _batch_sums, "side": _side_sums, "group": _group_sums, "sequence": _sequence_sums,
}  # fmt: skip
