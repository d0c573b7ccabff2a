"""Every overlay of `configs/preset/` and `configs/ablation/` runs on top of the quickstart; a preset gives what it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from delta_lightning.advantages import (
    GroupCentred,
    GroupStandardised,
    LeaveOneOut,
    MaxRL,
    OptimalBaseline,
    ReinforcePlusPlusBaseline,
)
from delta_lightning.credit import KTAE, Uniform
from delta_lightning.filters import AccuracyRange, ZeroVariance
from delta_lightning.losses import (
    CISPO,
    GSPO,
    KL,
    SAPO,
    ClippedSurrogate,
    ConstantLength,
    KLCov,
    SequenceMean,
    TokenMean,
)
from delta_lightning.shaping import SoftOverlong
from support.cli import Invoke

from .test_configs import ROOT, instantiated

PRESETS = sorted((ROOT / "configs" / "preset").glob("*.yaml"))
ABLATIONS = sorted((ROOT / "configs" / "ablation").glob("*.yaml"))
SYMMETRIC = ClippedSurrogate(clip_low=0.2, clip_high=0.2, dual_clip=None)
OBJECTIVES: dict[str, dict[str, Any]] = {
    "grpo_vanilla": {"loss": SYMMETRIC, "reduction": SequenceMean(), "penalties": (KL(),)},
    "dapo_no_ds": {"loss": ClippedSurrogate(), "reduction": TokenMean()},
    "dapo_32b": {
        "loss": ClippedSurrogate(), "reduction": TokenMean(), "filters": (AccuracyRange(),),
        "shaping": (SoftOverlong(factor=0.5),),
    },
    "dr_grpo": {"loss": SYMMETRIC, "reduction": ConstantLength(), "advantage": GroupCentred()},
    "sapo_paper": {"loss": SAPO(), "reduction": SequenceMean()},
    "sapo_tokenmean": {"loss": SAPO(), "reduction": TokenMean()},
    "gspo_paper": {"loss": GSPO(), "reduction": SequenceMean()},
    "cispo_minimax": {"loss": CISPO(ratio_cap=1.2), "reduction": TokenMean()},
    "cispo_scalerl": {
        "loss": CISPO(), "reduction": TokenMean(), "filters": (ZeroVariance(),),
        "advantage": ReinforcePlusPlusBaseline(counted="responses"),
    },
    "klcov_7b": {"loss": KLCov(), "reduction": TokenMean()},
    "ktae_7b": {
        "loss": ClippedSurrogate(clip_high=0.24), "reduction": TokenMean(), "filters": (AccuracyRange(),),
        "shaping": (SoftOverlong(max_length=3072, buffer=512, factor=0.5),), "credit": KTAE(),
    },
    "rloo": {"advantage": LeaveOneOut()},
    "max_rl": {"advantage": MaxRL()},
    "opo": {"advantage": OptimalBaseline()},
    "reinforce_pp_baseline": {"advantage": ReinforcePlusPlusBaseline()},
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective(name: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / "configs" / "preset" / f"{name}.yaml"
    parts = instantiated(
        invoke, monkeypatch, "--config=configs/quickstart.yaml", f"--config={path}", f"--run_dir={tmp_path}/run"
    ).parts
    wanted = {"advantage": GroupStandardised(), "credit": Uniform(), "filters": (), "shaping": (), "penalties": ()}
    for seam, part in {**wanted, **OBJECTIVES[name]}.items():
        assert getattr(parts, seam) == part, seam


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#") and "arXiv" in text.split("model:")[0]
    assert len(text.splitlines()) <= 30
    assert set(yaml.safe_load(text)) == {"model"}, "sizes and data are the run's"


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_loss_comes_with_its_weighting(path: Path) -> None:
    """Else a preset on top of a run with FIPO would be that method with FIPO's weights."""
    model = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]
    assert "loss" not in model or "weighting" in model


@pytest.mark.parametrize("path", [*PRESETS, *ABLATIONS], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_overlay_gives_the_parts_that_it_writes(
    path: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each overlay on top of the quickstart, whoever added it: it parses, passes the checks, and nothing in it is lost."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# "), "an overlay begins with a comment that says what it is"
    monkeypatch.chdir(ROOT)
    module = instantiated(
        invoke, monkeypatch, "--config=configs/quickstart.yaml", f"--config={path}", f"--run_dir={tmp_path}/run"
    )
    wanted = yaml.safe_load(text)
    assert set(wanted) == {"model"}, "sizes and data are the run's"
    for seam, part in wanted["model"].items():
        built = getattr(module.parts, seam, None)
        if built is not None and isinstance(part, dict):
            assert type(built).__name__ == part["class_path"].rpartition(".")[2], seam


def test_opo_is_on_policy(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    args = ("--config=configs/quickstart.yaml", "--config=configs/preset/opo.yaml", f"--run_dir={tmp_path}/run")
    assert instantiated(invoke, monkeypatch, *args).plan.cut.updates == 1
