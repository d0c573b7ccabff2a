"""Laws of the parts that see each update: token weightings, policy losses, penalties, reductions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from delta_lightning.interfaces import Penalty, PolicyLoss, Reduction, TokenWeighting
from delta_lightning.testing.compare import check_tensor, close
from delta_lightning.testing.step_laws import CUTS, check_step_part
from delta_lightning.testing.views import View, only
from delta_lightning.testing.worlds import Scored, degenerate, mixed, totals_of
from delta_lightning.types import Experience, Need, Statistics, TokenScores


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
    return part.statistics(world.experience(), View(world)) if Need.MINI_BATCH in part.needs() else None


def moved(view: View) -> tuple[Experience, TokenScores]:
    """An experience whose old policy is the world's reference, so that log-ratios of either sign travel with their rows."""
    world = view.world
    experience = replace(world.experience(), old_logprobs_BT=world.reference_logprobs_BT * world.batch.loss_mask_BT)
    scores = replace(only(world.scores(slice(0, world.batch.num_sequences)), view.needs), reference_logprobs_BT=None)
    declared = experience.reference_logprobs_BT if Need.REFERENCE in view.needs else None
    return replace(experience, reference_logprobs_BT=declared), scores


def check_across_cuts(part: PolicyLoss | TokenWeighting, compute: Callable[..., Tensor]) -> None:
    """Statistics of the mini-batch and what comes of them: the same for any cut, any padding and any number of ranks."""

    def function(view: View) -> dict[str, Tensor]:
        experience, scores = moved(view)
        statistics = part.statistics(experience, view) if Need.MINI_BATCH in part.needs() else None
        values = {"result": compute(part, statistics, experience, scores) * view.batch.loss_mask_BT}
        if statistics is not None and statistics.keep_BT is not None:
            values["kept"] = (statistics.keep_BT & view.batch.loss_mask_BT).float()
        return {name: value.detach() for name, value in values.items()}

    check_step_part(function, needs=part.needs())


def _loss_of(part: PolicyLoss, statistics: Statistics | None, experience: Experience, scores: TokenScores) -> Tensor:
    return part.per_token(experience, scores, statistics).detach()


def _weights_of(part: TokenWeighting, statistics: Statistics | None, experience: Experience, scores: TokenScores) -> Tensor:
    return part.weights(experience, scores, statistics)


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
        check_rows(partial(_loss_of, part, statistics), experience, scores)
        for name, poor in degenerate(dtype).items():
            experience, scores, _ = at_log_ratio(poor, 0.1)
            value = part.per_token(experience, scores, statistics_of(part, poor))
            check_tensor(value.detach(), poor.logprobs_BT.shape, f"loss with {name}", mask=poor.batch.loss_mask_BT)
    check_across_cuts(part, _loss_of)


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
    """The laws of `TokenWeighting`, and that log-ratios of +-50 do no harm."""
    for dtype in (torch.float64, torch.float32):
        for name, world in {"mixed": mixed(dtype), **degenerate(dtype)}.items():
            statistics = statistics_of(part, world)
            for log_ratio in (drift(world), 50.0, -50.0):
                experience, scores, leaf = at_log_ratio(world, log_ratio)
                check_tensor(part.weights(experience, scores, statistics), leaf.shape, f"weights with {name}")
            experience, scores, _ = at_log_ratio(world, drift(world))
            check_rows(partial(_weights_of, part, statistics), experience, scores)
    check_across_cuts(part, _weights_of)


def check_penalty(part: Penalty) -> None:
    """The laws of `Penalty`, and that log-ratios of +-50 do no harm."""

    def values(view: View) -> dict[str, Tensor]:
        return {"penalty": part.per_token(*moved(view)).detach()}

    check_step_part(values, needs=part.needs())
    for dtype in (torch.float64, torch.float32):
        for name, world in {"mixed": mixed(dtype), **degenerate(dtype)}.items():
            for log_ratio in (drift(world), 50.0, -50.0):
                experience, scores, leaf = at_log_ratio(world, log_ratio)
                value_BT = part.per_token(experience, scores)
                check_tensor(value_BT.detach(), leaf.shape, f"penalty with {name}", mask=world.batch.loss_mask_BT)
                if value_BT.requires_grad:
                    (gradient,) = torch.autograd.grad(value_BT.sum(), leaf, materialize_grads=True, allow_unused=True)
                    check_tensor(gradient, leaf.shape, f"gradient with {name}", mask=world.batch.loss_mask_BT)
            experience, scores, _ = at_log_ratio(world, drift(world))
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
