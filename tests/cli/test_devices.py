"""A run on several devices that names no strategy is sharded, and says so; a strategy that is named stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from delta_lightning.cli.devices import check_devices, check_nodes, settle_strategy
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


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
@pytest.mark.parametrize(("changes", "said"), [
    ({"devices": 0}, "trainer.devices: wanted auto, or a number of at least 1, got 0. Leave it out for auto"),
    ({"devices": "abc"}, "trainer.devices: wanted auto, or a number of at least 1, got 'abc'"),
    ({"devices": -1}, "trainer.devices: wanted auto, or a number of at least 1, got -1"),
    ({"devices": [0, 2]}, "trainer.devices: wanted auto, or a number of at least 1, got [0, 2]"),
    ({"accelerator": "gpu"}, "trainer.accelerator: wanted one that torch finds on this machine, got 'gpu'. Leave it out"),
    ({"accelerator": "gup"}, "trainer.accelerator: wanted one of auto, cpu, gpu, cuda, mps, got 'gup'. Did you mean gpu?"),
])  # fmt: skip
def test_devices_that_there_are_not_are_refused(
    changes: dict[str, Any], said: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=re.escape(said)):
        settled(**changes, strategy=strategy)


@pytest.mark.parametrize("devices", [-1, "-1", [0, 2], "0,2", "[0]", 4, "auto"])
def test_gpus_may_be_listed(devices: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_devices("gpu", devices)
    for wrong in (0, "no number", -2, [], "1.5"):
        with pytest.raises(ConfigError, match=r"trainer.devices: .* a list such as \[0, 2\] for some"):
            check_devices("gpu", wrong)


def test_several_nodes_need_a_launcher_or_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    trainer = Trainer(accelerator="cpu", num_nodes=2, strategy="fsdp2", logger=False)
    with pytest.raises(ConfigError, match=r"trainer.num_nodes: wanted 1 without a launcher .* got 2\. Start .* torchrun"):
        check_nodes(trainer)
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    check_nodes(trainer)
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR")
    check_nodes(Trainer(accelerator="cpu", num_nodes=2, strategy="fsdp2", logger=False))


@pytest.mark.timeout(200)
def test_from_the_command_line(tmp_path: Path) -> None:
    ended = shell("fit", *SMALL, f"--run_dir={tmp_path / 'run'}", "--trainer.devices=2", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("strategy: fsdp2, the model sharded over 2 devices") == 1, "said once, by rank 0"
    assert ended.stderr.count("starting 2 ranks\n") == 1
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["strategy"] == "fsdp2"
    parts = sorted(path.name for path in (tmp_path / "run" / "checkpoints" / "step-1.ckpt").glob("*.distcp"))
    assert parts == ["__0_0.distcp", "__1_0.distcp"]
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()
