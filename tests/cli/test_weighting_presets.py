"""The presets of token weightings give the parts of their papers."""

from __future__ import annotations

from pathlib import Path

import pytest

from delta_lightning.advantages import GroupStandardised
from delta_lightning.credit import Uniform
from delta_lightning.losses import FIPO, ClippedSurrogate, TokenMean
from support.cli import Invoke

from .test_configs import ROOT, instantiated

PRESETS = {
    "fipo_32b": FIPO(),
    "fipo_7b": FIPO(low=0.8, safety_ratio=3.0),
    "fipo_as_in_delta": FIPO(),
}


@pytest.mark.parametrize("name", PRESETS)
def test_preset(name: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / "configs" / "preset" / f"{name}.yaml"
    parts = instantiated(
        invoke, monkeypatch, "--config=configs/quickstart.yaml", f"--config={path}", f"--run_dir={tmp_path}/run"
    ).parts
    assert parts.weighting == PRESETS[name]
    assert (parts.advantage, parts.credit) == (GroupStandardised(), Uniform())
    assert (parts.loss, parts.reduction, parts.penalties) == (ClippedSurrogate(), TokenMean(), ())
    assert isinstance(parts.loss, ClippedSurrogate) and parts.loss.dual_clip == PRESETS[name].dual_clip
