"""The laws of `delta_lightning.interfaces` as checks: each takes a part and raises `AssertionError` where it breaks one.

They hold for every part, so they compare a part with itself under changes that must not matter; that its numbers are the
right ones is for the part's own tests.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from delta_lightning import interfaces
from delta_lightning.interfaces import (
    AdvantageEstimator,
    CreditAssigner,
    Penalty,
    PolicyLoss,
    Reduction,
    RolloutCorrection,
    RolloutFilter,
    TokenWeighting,
)
from delta_lightning.types import Experience, Need, RolloutBatch, Statistics, TokenScores
from support.batches import Scored, degenerate, mixed, totals_of
from support.views import Collectives, View, rows_of_rank, run_ranks

PACKAGES = ("advantages", "corrections", "credit", "data", "filters", "losses", "samplers", "verifiers")
SEAMS: tuple[type, ...] = (
    interfaces.PromptSource, interfaces.Sampler, interfaces.Verifier, RolloutFilter, AdvantageEstimator, RolloutCorrection,
    CreditAssigner, TokenWeighting, PolicyLoss, Penalty, Reduction,
)  # fmt: skip
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
CUTS = {"rows": [slice(i, i + 1) for i in range(12)], "uneven": [slice(0, 5), slice(5, 5), slice(5, 6), slice(6, 12)]}

# Parts that cannot be built from their defaults alone: how to build one.
EXAMPLES: dict[str, Callable[[type], Any]] = {}


def concrete_parts(seam: type) -> list[type]:
    """Every concrete subclass of `seam` outside the tests, plug-ins included, by name."""
    for package in PACKAGES:
        importlib.import_module(f"delta_lightning.{package}")
    for plugin in entry_points(group="delta_lightning.plugins"):
        plugin.load()
    tests = Path(__file__).parents[1]

    def walk(cls: type) -> Iterator[type]:
        for child in cls.__subclasses__():
            yield child
            yield from walk(child)

    found = {cls for cls in walk(seam) if not inspect.isabstract(cls) and tests not in Path(inspect.getfile(cls)).parents}
    return sorted(found, key=lambda cls: cls.__qualname__)


def build(cls: type) -> Any:
    """An instance with published defaults."""
    return EXAMPLES.get(cls.__name__, lambda part: part())(cls)


def close(got: Tensor, wanted: Tensor, what: str) -> None:
    """Equal within the tolerance of the coarser dtype, shapes and non-finite values included."""
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, wanted {tuple(wanted.shape)}"
    tolerance = max(TOLERANCE.get(value.dtype, 0.0) for value in (got, wanted))
    difference = (got.double() - wanted.double()).abs()
    assert bool((difference <= tolerance).all()), f"{what}: differs by up to {float(difference.max()):.3g}"


def check_tensor(value: Tensor, shape: Sequence[int], what: str, *, mask: Tensor | None = None) -> None:
    """The right shape, finite, without gradient, 0 outside the mask."""
    assert tuple(value.shape) == tuple(shape), f"{what}: shape {tuple(value.shape)}, wanted {tuple(shape)}"
    assert not value.requires_grad, f"{what}: carries a gradient"
    assert bool(torch.isfinite(value).all()), f"{what}: not finite"
    if mask is not None:
        assert not bool(value[~mask].any()), f"{what}: not 0 outside the mask"


# ------------------------------------------------------------------------------------------------- what a part is


def check_part(cls: type) -> None:
    """A frozen, keyword-only dataclass without slots, documented field by field, exported by its package, picklable."""
    assert dataclasses.is_dataclass(cls), "not a dataclass"
    params = cls.__dataclass_params__  # type: ignore[attr-defined]
    assert params.frozen, "not frozen"
    assert all(item.kw_only for item in dataclasses.fields(cls)), "not keyword-only"
    assert "__slots__" not in vars(cls), "slots leave a ghost class behind"
    doc = inspect.getdoc(cls) or ""
    described = doc.partition("Args:")[2]
    missing = [item.name for item in dataclasses.fields(cls) if f"{item.name}:" not in described]
    assert not missing, f"fields without a line in the docstring's Args: {missing}"
    package = importlib.import_module(cls.__module__.rpartition(".")[0])
    assert cls.__name__ in package.__all__, f"not in {package.__name__}.__all__"
    part = build(cls)
    assert pickle.loads(pickle.dumps(part)) == part, "does not survive pickling"
    if hasattr(part, "needs"):
        needs = part.needs()
        assert isinstance(needs, frozenset) and all(isinstance(need, Need) for need in needs), (
            "needs(): not a frozenset of Need"
        )


# --------------------------------------------------------------------------------- parts that see the rollout step


StepFunction = Callable[[View], dict[str, Tensor]]


def check_step_part(function: StepFunction, *, local: bool = False, whole_groups_only: bool = False) -> None:
    """Independent of row order, padding, the cut into micro-batches and the split over ranks; fine on degenerate batches."""
    for dtype in (torch.float64, torch.float32):
        world = mixed(dtype)
        wanted = function(View(world))
        _compare(function(View(requiring_grad(world))), wanted, "scores with gradient")
        order = torch.tensor([5, 0, 11, 7, 2, 9, 1, 3, 10, 4, 8, 6])
        _compare(function(View(world.rows(order))), {k: v[order] for k, v in wanted.items()}, "permuted rows")
        _compare(narrow(function(View(world.widened(3))), world), wanted, "more padding")
        for name, cuts in CUTS.items():
            _compare(function(View(world, cuts=cuts)), wanted, f"cut by {name}")
        if not local:
            check_ranks(function, world, wanted, whole_groups_only=whole_groups_only)
        for name, poor in degenerate(dtype).items():
            for key, value in function(View(poor)).items():
                assert bool(torch.isfinite(value).all()), f"{key}: not finite with {name}"


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
        values = {"scale": credit.scale_BT} | ({} if credit.shift_BT is None else {"shift": credit.shift_BT})
        for name, value in values.items():
            check_tensor(value, mask_BT.shape, name, mask=mask_BT)
        if not part.token_level():
            row_means_B = credit.scale_BT.sum(1) / mask_BT.sum(1).clamp(min=1)
            close(credit.scale_BT, row_means_B[:, None] * mask_BT, "scale within a row, though token_level() is False")
        return values

    check_step_part(function, local=part.cut_dependent())


def check_correction(part: RolloutCorrection) -> None:
    """The laws of `RolloutCorrection`."""

    def function(view: View) -> dict[str, Tensor]:
        correction, mask_BT = part.correct(view), view.batch.loss_mask_BT
        assert correction.mask_BT.dtype == torch.bool
        assert not bool((correction.mask_BT & ~mask_BT).any()), "mask: enlarged"
        check_tensor(correction.weights_BT, mask_BT.shape, "weights", mask=correction.mask_BT)
        return {"weights": correction.weights_BT, "mask": correction.mask_BT.float()}

    check_step_part(function)


def check_advantage(part: AdvantageEstimator) -> None:
    """The laws of `AdvantageEstimator`."""

    def function(view: View) -> dict[str, Tensor]:
        advantages, batch = part.advantages(view), view.batch
        shape = batch.rewards_B.shape if advantages.ndim == 1 else batch.loss_mask_BT.shape
        check_tensor(advantages, shape, "advantages")
        assert not bool(advantages[~batch.valid_B].any()), "advantages: not 0 without a verdict"
        return {"advantages": advantages}

    check_step_part(function, whole_groups_only=True)
    world = mixed()
    odd_B = torch.where(world.batch.valid_B, world.batch.rewards_B, 1e6)
    odd = replace(world, batch=replace(world.batch, rewards_B=odd_B))
    close(function(View(odd))["advantages"], function(View(world))["advantages"], "reward of a row without verdict")


def check_filter(part: RolloutFilter) -> None:
    """The laws of `RolloutFilter`."""

    def function(view: View) -> dict[str, Tensor]:
        batch = view.batch
        ids_P, group_of_row = batch.group_ids_B.unique(return_inverse=True)
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


# --------------------------------------------------------------------------------------- parts that see each update


def at_log_ratio(world: Scored, log_ratio: float | Tensor) -> tuple[Experience, TokenScores, Tensor]:
    """An experience, the scores of a policy that moved by `log_ratio`, and the leaf whose gradient is asked for."""
    experience, scores = world.experience(), world.scores(slice(0, world.batch.num_sequences))
    mask_BT = world.batch.loss_mask_BT
    logprobs_BT = ((scores.logprobs_BT + log_ratio) * mask_BT).detach().requires_grad_()
    return experience, replace(scores, logprobs_BT=logprobs_BT), logprobs_BT


def drift(world: Scored) -> Tensor:
    """Log-ratios of either sign, some of them beyond every clip."""
    shape = world.logprobs_BT.shape
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(world.logprobs_BT.dtype)


def statistics_of(part: PolicyLoss | TokenWeighting, world: Scored) -> Statistics | None:
    """The pass over the mini-batch, where the part wants one."""
    return part.statistics(View(world)) if Need.MINI_BATCH in part.needs() else None


def check_rows(compute: Callable[[Experience, TokenScores], Tensor], experience: Experience, scores: TokenScores) -> None:
    """The value of each row depends on that row alone."""
    whole_BT = compute(experience, scores)
    for row in range(experience.batch.num_sequences):
        mine = slice(row, row + 1)
        alone = compute(experience.rows(mine), _rows_without_hidden(scores, mine))
        close(alone, whole_BT[mine], f"row {row} alone")


def _rows_without_hidden(scores: TokenScores, rows: slice) -> TokenScores:
    return replace(scores, hidden_ND=None).rows(rows)


def check_loss(part: PolicyLoss) -> None:
    """The laws of `PolicyLoss`, and that log-ratios of +-50 do no harm."""
    for dtype in (torch.float64, torch.float32):
        world = mixed(dtype)
        check_on_policy(part, world)
        statistics = statistics_of(part, world)
        for log_ratio in (drift(world), 50.0, -50.0):
            experience, scores, leaf = at_log_ratio(world, log_ratio)
            loss_BT = part.per_token(experience, scores, statistics)
            check_tensor(loss_BT.detach(), leaf.shape, "loss", mask=world.batch.loss_mask_BT)
            (gradient,) = torch.autograd.grad(loss_BT.sum(), leaf)
            check_tensor(gradient, leaf.shape, "gradient", mask=world.batch.loss_mask_BT)
            for name, value in part.metrics(experience, scores).items():
                check_tensor(value, leaf.shape, f"metric {name}", mask=world.batch.loss_mask_BT)
        experience, scores, _ = at_log_ratio(world, drift(world))
        check_rows(lambda e, s, at=statistics: part.per_token(e, s, at).detach(), experience, scores)
        for name, poor in degenerate(dtype).items():
            experience, scores, _ = at_log_ratio(poor, 0.1)
            value = part.per_token(experience, scores, statistics_of(part, poor))
            check_tensor(value.detach(), poor.logprobs_BT.shape, f"loss with {name}", mask=poor.batch.loss_mask_BT)


def check_on_policy(part: PolicyLoss, world: Scored) -> None:
    """At ratio 1 the gradient of the summed loss by log p is -A, or the row's mean of it where credit is erased."""
    generator = torch.Generator().manual_seed(3)
    mask_BT = world.batch.loss_mask_BT
    credit_BT = (0.5 + torch.rand(mask_BT.shape, generator=generator, dtype=torch.float64)).to(
        world.logprobs_BT.dtype
    ) * mask_BT
    _, scores, leaf = at_log_ratio(world, 0.0)
    experience = world.experience(credit_BT)
    loss_BT = part.per_token(experience, scores, statistics_of(part, world))
    (gradient_BT,) = torch.autograd.grad(loss_BT.sum(), leaf)
    wanted_BT = -experience.token_advantages_BT
    if part.erases_token_credit():
        wanted_BT = (wanted_BT.sum(1) / mask_BT.sum(1).clamp(min=1))[:, None] * mask_BT
    close(gradient_BT, wanted_BT, "gradient at ratio 1")


def check_weighting(part: TokenWeighting) -> None:
    """The laws of `TokenWeighting`."""
    for dtype in (torch.float64, torch.float32):
        for name, world in {"mixed": mixed(dtype), **degenerate(dtype)}.items():
            statistics = statistics_of(part, world)
            experience, scores, leaf = at_log_ratio(world, drift(world))
            check_tensor(part.weights(experience, scores, statistics), leaf.shape, f"weights with {name}")
            check_rows(lambda e, s, at=statistics: part.weights(e, s, at), experience, scores)


def check_penalty(part: Penalty) -> None:
    """The laws of `Penalty`."""
    for dtype in (torch.float64, torch.float32):
        for name, world in {"mixed": mixed(dtype), **degenerate(dtype)}.items():
            experience, scores, leaf = at_log_ratio(world, drift(world))
            value_BT = part.per_token(experience, scores).detach()
            check_tensor(value_BT, leaf.shape, f"penalty with {name}", mask=world.batch.loss_mask_BT)
            check_rows(lambda e, s: part.per_token(e, s).detach(), experience, scores)


def check_reduction(part: Reduction) -> None:
    """The laws of `Reduction`: a part of the step gets that part of the weights, so nothing local is in a denominator."""
    for dtype in (torch.float64, torch.float32):
        world = mixed(dtype)
        totals = totals_of(world)
        whole_BT = part.weights(world.experience(), totals)
        check_tensor(whole_BT, world.logprobs_BT.shape, "weights", mask=world.batch.loss_mask_BT)
        for rows in (*CUTS["rows"], *CUTS["uneven"]):
            close(
                part.weights(world.experience().rows(rows), totals), whole_BT[rows], f"weights of rows {rows.start}:{rows.stop}"
            )
        wide_BT = part.weights(world.widened(3).experience(), totals)
        close(wide_BT[:, : whole_BT.shape[1]], whole_BT, "weights with more padding")
        for name, poor in degenerate(dtype).items():
            weights_BT = part.weights(poor.experience(), totals_of(poor))
            check_tensor(weights_BT, poor.logprobs_BT.shape, f"weights with {name}", mask=poor.batch.loss_mask_BT)


CHECKS: dict[type, Callable[[Any], None]] = {
    AdvantageEstimator: check_advantage,
    CreditAssigner: check_credit,
    Penalty: check_penalty,
    PolicyLoss: check_loss,
    Reduction: check_reduction,
    RolloutCorrection: check_correction,
    RolloutFilter: check_filter,
    TokenWeighting: check_weighting,
}
