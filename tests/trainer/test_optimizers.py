"""Optimisers do the same on one device and sharded, schedules what their page says; clipping is by the norm of the whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser, LRSchedulerCallable
from torch import Tensor

from delta_lightning.models.scorer import Scorer
from delta_lightning.models.sharding import full
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.testing.worlds import make_batch
from delta_lightning.trainer.gradients import Gradients
from delta_lightning.trainer.ranks import Ranks
from support.models import tiny_model
from support.runs import run
from support.sharded import cut
from support.world import run_ranks

pytestmark = pytest.mark.timeout(300)


KINDS: dict[str, Any] = {
    "plain": lambda params: torch.optim.AdamW(params, lr=1e-3, foreach=False),
    "foreach": lambda params: torch.optim.AdamW(params, lr=1e-3, foreach=True),
    "fused": lambda params: torch.optim.AdamW(params, lr=1e-3, fused=True),
}


def ended(kind: str, folder: Path, **options: Any) -> dict[str, Tensor]:
    return run(optimizer=KINDS[kind], folder=folder, **options).values


# Clipping ----------------------------------------------------------------------------------------------------------------


def clipped(model: Any, limit: float) -> tuple[float, dict[str, Tensor]]:
    """The norm of a backward pass's gradient, and the gradient after clipping."""
    rows = make_batch([4, 1, 6], rewards=[1, 0, 1], groups=[0, 0, 0])
    Scorer(model=model).score(rows, frozenset()).logprobs_BT.sum().backward()
    norm = Gradients(max_norm=limit, max_skipped=0).clip(model, step=0, say=lambda line: None)
    return float(norm), {name: full(p.grad) for name, p in model.named_parameters() if p.grad is not None}


def frozen(model: Any) -> Any:
    """All but the first layer's projections and the final norm is frozen, as under an adapter."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.0.self_attn" in name or name == "model.norm.weight")
    return model


def on_ranks(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "all": clipped(cut(tiny_model), 0.5), "frozen": clipped(frozen(cut(tiny_model)), 0.5),
    }  # fmt: skip
    for kind in KINDS:
        found[kind] = ended(kind, folder / kind, strategy=FSDP2Strategy(), devices=Ranks.current().size)
    return found


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(2, on_ranks, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("which", ["all", "frozen"])
def test_a_sharded_gradient_is_clipped_by_the_norm_of_the_whole(sharded: list[dict[str, Any]], which: str) -> None:
    model = tiny_model() if which == "all" else frozen(tiny_model())
    norm, want = clipped(model, 0.5)
    assert norm > 1, "nothing is clipped"
    assert math.sqrt(sum(float(g.double().square().sum()) for g in want.values())) == pytest.approx(0.5, rel=1e-5)
    for found in sharded:
        assert found[which][0] == pytest.approx(norm, rel=1e-6)
        assert found[which][1].keys() == want.keys() and (which == "all" or len(want) < len(list(model.parameters())))
        for name, gradient in want.items():
            torch.testing.assert_close(found[which][1][name], gradient, rtol=1e-5, atol=1e-7)


# Optimisers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_sharded_optimiser_ends_where_one_on_a_device_does(sharded: list[dict[str, Any]], kind: str, tmp_path: Path) -> None:
    """Adam moves a parameter by at most the learning rate at each update; rounding flips signs of gradients near 0 alone."""
    want = ended(kind, tmp_path)
    for found in sharded:
        distance = torch.cat([(found[kind][name] - value).abs().flatten() for name, value in want.items()])
        assert float(distance.max()) < 1e-5


@pytest.mark.parametrize("kind", ["foreach", "fused"])
def test_ways_of_computing_it_are_the_same_optimiser(kind: str, tmp_path: Path) -> None:
    plain = ended("plain", tmp_path / "plain")
    for name, value in ended(kind, tmp_path / kind).items():
        torch.testing.assert_close(value, plain[name], atol=1e-5, rtol=0)


# Schedules ---------------------------------------------------------------------------------------------------------------

SCHEDULES = {
    "warm-up": ("LinearLR, init_args: {start_factor: 0.25, total_iters: 3}", [0.25, 0.5, 0.75, 1.0, 1.0]),
    "cosine": ("CosineAnnealingLR, init_args: {T_max: 4}", [0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(5)]),
    "warm-up, then linear": (
        "OneCycleLR, init_args: {max_lr: 1.0, total_steps: 8, pct_start: 0.375, anneal_strategy: linear, div_factor: 4, "
        "final_div_factor: 2.5, cycle_momentum: false}",
        [0.25, 0.625, 1.0, 0.82, 0.64, 0.46, 0.28, 0.1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_the_page(name: str) -> None:
    """As the YAML of docs/optimisers.md builds them, an update after another."""
    text, want = SCHEDULES[name]
    parser = LightningArgumentParser()
    parser.add_argument("--scheduler", type=LRSchedulerCallable)
    chosen = yaml.safe_load("{class_path: torch.optim.lr_scheduler." + text + "}")
    make = parser.instantiate_classes(parser.parse_object({"scheduler": chosen}))["scheduler"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = make(optimizer), []
    for _ in want:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(want, abs=1e-6)
