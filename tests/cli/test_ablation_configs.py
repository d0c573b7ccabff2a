"""Every overlay of `configs/ablation/` runs on top of the quickstart, and changes what it says and nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from delta_lightning.credit import Delta
from delta_lightning.trainer.module import PolicyModule
from support.cli import Invoke

from .test_configs import ROOT, instantiated

OVERLAYS = sorted((ROOT / "configs" / "ablation").glob("*.yaml"))
OF_DELTA = {
    "k0", "k1", "k2", "k3", "low_0.5", "high_1.5", "both", "within_side", "fixed_gamma", "hard_gates", "no_normalisation",
    "no_range_map", "geometric_median", "scope_group", "scope_rank", "proxy_hidden_gradient", "proxy_top_k",
    "proxy_head_gradient",
}  # fmt: skip


def module_of(path: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PolicyModule:
    monkeypatch.chdir(ROOT)
    return instantiated(
        invoke, monkeypatch, "--config=configs/quickstart.yaml", f"--config={path}", f"--run_dir={tmp_path}/run"
    )


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlay(path: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#"), "the first line says what it is"
    assert len(text.splitlines()) <= 30
    module = module_of(path, invoke, tmp_path, monkeypatch)
    if path.stem in OF_DELTA:
        changes = yaml.safe_load(text)["model"]["credit"]["init_args"]
        assert isinstance(module.parts.credit, Delta)
        assert module.parts.credit == replace(Delta(), **{name: built(name, value) for name, value in changes.items()})
        assert (module.parts.credit == Delta()) == (path.stem == "k1")


def built(name: str, value: Any) -> Any:
    """A field's value from YAML: a proxy by its class, anything else as it stands."""
    if name != "proxy":
        return value
    from delta_lightning.credit import proxies

    return getattr(proxies, value["class_path"])(**value.get("init_args", {}))


def test_no_overlay_is_missing_and_no_two_are_alike() -> None:
    assert {path.stem for path in OVERLAYS} >= OF_DELTA
    contents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in OVERLAYS]
    assert all(contents.count(content) == 1 for content in contents)


def test_every_field_of_delta_is_ablated() -> None:
    changed = set()
    for path in OVERLAYS:
        if path.stem in OF_DELTA:
            changed |= set(yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["credit"]["init_args"])
    assert changed == {item.name for item in fields(Delta)} - {"median_steps"}
