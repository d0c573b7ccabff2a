"""Every overlay of `configs/preset/` runs on top of the quickstart and gives the objective that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from delta_lightning.advantages import GroupCentred, GroupStandardised, ReinforcePlusPlusBaseline
from delta_lightning.credit import Uniform
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
