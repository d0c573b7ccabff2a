"""Laws of the parts that see a rollout step: estimators, corrections, credit assigners, filters, shaping."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from delta_lightning.interfaces import AdvantageEstimator, CreditAssigner, RewardShaping, RolloutCorrection, RolloutFilter
from delta_lightning.testing.compare import check_tensor, close
from delta_lightning.testing.views import EVERYTHING, Collectives, View, rows_of_rank, run_ranks
from delta_lightning.testing.worlds import Scored, degenerate, mixed
from delta_lightning.types import Need, RolloutBatch

CUTS = {"rows": [slice(i, i + 1) for i in range(12)], "uneven": [slice(0, 5), slice(5, 5), slice(5, 6), slice(6, 12)]}

StepFunction = Callable[[View], dict[str, Tensor]]


def check_step_part(
    function: StepFunction, *, needs: frozenset[Need] = EVERYTHING, local: bool = False, whole_groups_only: bool = False
) -> None:
    """Independent of row order, padding, the cut into micro-batches and the split over ranks; fine on degenerate batches.

    With no more than `needs` of the scores the result is the same, and the view is left as it was.
    """
    for dtype in (torch.float64, torch.float32):
        world = mixed(dtype)
        before = world.map(Tensor.clone)
        wanted = function(View(world))
        check_untouched(world, before)
        check_declared(function, world, wanted, needs)
        _compare(function(View(requiring_grad(world))), wanted, "scores with gradient")
        order = torch.tensor([5, 0, 11, 7, 2, 9, 1, 3, 10, 4, 8, 6])
        _compare(function(View(world.rows(order))), {k: v[order] for k, v in wanted.items()}, "permuted rows")
        _compare(narrow(function(View(world.widened(3))), world), wanted, "more padding")
        for name, cuts in CUTS.items():
            _compare(function(View(world, cuts=cuts)), wanted, f"cut by {name}")
        late = world.without(world.batch.sequence_ids_B == 0)
        _compare(function(View(late, cuts=CUTS["rows"])), function(View(late)), "cut by rows, the first without tokens")
        if not local:
            check_ranks(function, world, wanted, whole_groups_only=whole_groups_only)
        for name, poor in degenerate(dtype).items():
            for key, value in function(View(poor)).items():
                assert bool(torch.isfinite(value).all()), f"{key}: not finite with {name}"


def check_untouched(world: Scored, before: Scored) -> None:
    """The part has changed nothing in place."""
    same_batch(world.batch, before.batch, but=())
    for name in ("advantages", "logprobs_BT", "entropies_BT", "sum_p_squared_BT", "reference_logprobs_BT", "hidden_BTD"):
        assert torch.equal(getattr(world, name), getattr(before, name)), f"{name}: changed in place"


def check_declared(function: StepFunction, world: Scored, wanted: dict[str, Tensor], needs: frozenset[Need]) -> None:
    """The same result where only what `needs` names was computed, as in a run."""
    try:
        got = function(View(world, needs=needs))
    except Exception as error:
        raise AssertionError(f"needs() does not name all that is used; {type(error).__name__}: {error}") from error
    _compare(got, wanted, "with only what needs() names")


def check_ranks(function: StepFunction, world: Scored, wanted: dict[str, Tensor], *, whole_groups_only: bool) -> None:
    """2 and 4 ranks, one of the four without rows; by whole groups, and by single rows where groups need not be whole."""
    rows = world.batch.num_sequences
    splits = {size: [rows_of_rank(world, rank, size) for rank in range(size)] for size in (2, 4)}
    ragged = [torch.arange(rows)[rank::2] for rank in range(2)]
    for parts in [*splits.values(), *([] if whole_groups_only else [ragged])]:

        def work(rank: int, ranks: Collectives, parts: list[Tensor] = parts) -> dict[str, Tensor]:
            return function(View(world.rows(parts[rank]), ranks=ranks))

        pieces = run_ranks(len(parts), work)
        order = torch.cat(parts).argsort()
        _compare({k: torch.cat([piece[k] for piece in pieces])[order] for k in wanted}, wanted, f"{len(parts)} ranks")


def requiring_grad(world: Scored) -> Scored:
    """The same scores, part of a graph."""
    names = ("logprobs_BT", "entropies_BT", "sum_p_squared_BT", "hidden_BTD")
    return replace(world, **{name: getattr(world, name).clone().requires_grad_() for name in names})


def narrow(values: dict[str, Tensor], world: Scored) -> dict[str, Tensor]:
    """Without the columns added to `world`, which must be 0."""
    length = world.batch.token_ids_BT.shape[1]
    for name, value in values.items():
        assert value.ndim == 1 or not bool(value[:, length:].any()), f"{name}: not 0 on padding"
    return {name: value if value.ndim == 1 else value[:, :length] for name, value in values.items()}


def _compare(got: dict[str, Tensor], wanted: dict[str, Tensor], change: str) -> None:
    for name, value in wanted.items():
        close(got[name], value, f"{name}, {change}")


def check_credit(part: CreditAssigner) -> None:
    """The laws of `CreditAssigner`."""

    def function(view: View) -> dict[str, Tensor]:
        credit = part.credit(view)
        mask_BT = view.batch.loss_mask_BT
        assert credit.shift_BT is None or part.additive(), "a shift, though additive() is False"
        values = {"scale": credit.scale_BT} | ({} if credit.shift_BT is None else {"shift": credit.shift_BT})
        for name, value in values.items():
            check_tensor(value, mask_BT.shape, name, mask=mask_BT)
        if not part.token_level():
            row_means_B = credit.scale_BT.sum(1) / mask_BT.sum(1).clamp(min=1)
            close(credit.scale_BT, row_means_B[:, None] * mask_BT, "scale within a row, though token_level() is False")
        return values

    check_step_part(function, needs=part.needs(), local=part.cut_dependent())
    if not part.per_response():
        world = mixed()
        wide = world.with_advantages(world.advantages[:, None] * world.batch.loss_mask_BT)
        try:
            got = function(View(wide))
        except Exception as error:
            raise AssertionError(f"refuses an advantage per token, though per_response() is False: {error}") from error
        _compare(got, function(View(world)), "the same advantages given per token")


def check_correction(part: RolloutCorrection) -> None:
    """The laws of `RolloutCorrection`."""

    def function(view: View) -> dict[str, Tensor]:
        correction, mask_BT = part.correct(view), view.batch.loss_mask_BT
        assert correction.mask_BT.dtype == torch.bool
        assert not bool((correction.mask_BT & ~mask_BT).any()), "mask: enlarged"
        check_tensor(correction.weights_BT, mask_BT.shape, "weights", mask=correction.mask_BT)
        return {"weights": correction.weights_BT, "mask": correction.mask_BT.float()}

    check_step_part(function, needs=part.needs())
    world, gap_BT = mixed(), 50.0 * mixed().batch.loss_mask_BT
    batch = world.batch
    far = {name: getattr(batch, name) - gap_BT.float() for name in ("behaviour_logprobs_BT", "raw_logprobs_BT")}
    function(View(replace(world, batch=replace(batch, **far))))
    function(View(replace(world, logprobs_BT=world.logprobs_BT - gap_BT)))


def check_advantage(part: AdvantageEstimator) -> None:
    """The laws of `AdvantageEstimator`."""

    def function(view: View) -> dict[str, Tensor]:
        advantages, batch = part.advantages(view), view.batch
        shape = batch.rewards_B.shape if advantages.ndim == 1 else batch.loss_mask_BT.shape
        check_tensor(advantages, shape, "advantages")
        assert not bool(advantages[~batch.valid_B].any()), "advantages: not 0 without a verdict"
        assert part.per_token() == (advantages.ndim == 2), "per_token() does not say what advantages() gives"
        return {"advantages": advantages}

    check_step_part(function, needs=part.needs(), whole_groups_only=True)
    world = mixed()
    odd_B = torch.where(world.batch.valid_B, world.batch.rewards_B, 1e6)
    odd = replace(world, batch=replace(world.batch, rewards_B=odd_B))
    close(function(View(odd))["advantages"], function(View(world))["advantages"], "reward of a row without verdict")


def check_filter(part: RolloutFilter) -> None:
    """The laws of `RolloutFilter`."""

    def function(view: View) -> dict[str, Tensor]:
        batch = view.batch
        ids_P, group_of_row = torch.unique(batch.group_ids_B, return_inverse=True)
        keep_P, kept = part.keep_groups(batch), part.apply(batch)
        assert keep_P.shape == ids_P.shape and keep_P.dtype == torch.bool, "keep_groups: not [P] bool"
        assert not bool((kept.loss_mask_BT & ~batch.loss_mask_BT).any()), "mask: enlarged"
        assert torch.equal(part.apply(kept).loss_mask_BT, kept.loss_mask_BT), "apply: not idempotent"
        assert torch.equal(part.keep_groups(kept), keep_P), "keep_groups: not idempotent"
        for name in ("behaviour_logprobs_BT", "raw_logprobs_BT"):
            assert not bool(getattr(kept, name)[~kept.loss_mask_BT].any()), f"{name}: not 0 outside the mask"
        same_batch(kept, batch, but=("loss_mask_BT", "behaviour_logprobs_BT", "raw_logprobs_BT"))
        return {"keep": keep_P[group_of_row].float(), "mask": kept.loss_mask_BT.float()}

    check_step_part(function, whole_groups_only=True)


def same_batch(got: RolloutBatch, wanted: RolloutBatch, *, but: Sequence[str]) -> None:
    """Equal in every other field."""
    for item in dataclasses.fields(wanted):
        value = getattr(wanted, item.name)
        if item.name not in but and isinstance(value, Tensor):
            assert torch.equal(getattr(got, item.name), value), f"{item.name}: changed"


def check_shaping(part: RewardShaping) -> None:
    """The laws of `RewardShaping`."""

    def function(view: View) -> dict[str, Tensor]:
        rewards_B = part.rewards(view.batch)
        check_tensor(rewards_B, view.batch.rewards_B.shape, "rewards", mask=view.batch.valid_B)
        assert rewards_B.dtype == view.batch.rewards_B.dtype, "rewards: dtype changed"
        return {"rewards": rewards_B}

    check_step_part(function)
