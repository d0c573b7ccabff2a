"""A run on several devices that names no strategy is sharded, and says so; a strategy that is named stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from delta_lightning.cli.devices import settle_strategy
from delta_lightning.errors import ConfigError
from support.cli import SMALL, shell


def settled(**changes: Any) -> tuple[str, str | None]:
    settings = {"strategy": "auto", "accelerator": "cpu", "devices": "auto", "num_nodes": 1} | changes
    line = settle_strategy(settings)
    return settings["strategy"], line


@pytest.mark.parametrize("devices", ["auto", 1, "1"])
def test_one_device_needs_no_strategy(devices: Any) -> None:
    assert settled(devices=devices) == ("auto", None)


@pytest.mark.parametrize(("changes", "count"), [
    ({"devices": 2}, 2), ({"devices": "3"}, 3), ({"num_nodes": 2}, 2), ({"devices": 4, "num_nodes": 3}, 12),
])  # fmt: skip
def test_several_devices_share_the_model(changes: dict[str, Any], count: int) -> None:
    strategy, line = settled(**changes)
    assert strategy == "fsdp2"
    assert line is not None and f"over {count} devices" in line and "--trainer.strategy=ddp" in line


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_strategy_that_is_named_stands(strategy: str) -> None:
    assert settled(strategy=strategy, devices=2) == (strategy, None)


def test_an_accelerator_of_a_class_is_left_to_lightning() -> None:
    assert settled(accelerator={"class_path": "lightning.pytorch.accelerators.CPUAccelerator"}, devices=2) == ("auto", None)


@pytest.mark.parametrize("devices", [0, "no number"])
def test_devices_that_there_are_not_are_refused(devices: Any) -> None:
    with pytest.raises(ConfigError, match="trainer: wanted settings that Lightning accepts"):
        settled(devices=devices)


@pytest.mark.timeout(200)
def test_from_the_command_line(tmp_path: Path) -> None:
    ended = shell("fit", *SMALL, f"--run_dir={tmp_path / 'run'}", "--trainer.devices=2", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("strategy: fsdp2, the model sharded over 2 devices") == 1, "said once, by rank 0"
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["strategy"] == "fsdp2"
    parts = sorted(path.name for path in (tmp_path / "run" / "checkpoints" / "step-1.ckpt").glob("*.distcp"))
    assert parts == ["__0_0.distcp", "__1_0.distcp"]
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()
