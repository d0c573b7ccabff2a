"""Faults of checkpoints and disks: a clear message, and no checkpoint is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from delta_lightning.cli import preflight
from delta_lightning.trainer.callbacks.manifest import damage
from delta_lightning.trainer.module import PolicyModule
from support.cli import Invoke
from support.kill_drill import LIMIT, differences, result, run

FAST = ("--model.backbone.layers=1", "--model.backbone.hidden_size=32", "--report.curves=false")
SHARDED = ("--trainer.devices=2", "--trainer.strategy=fsdp2")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def test_another_model_and_a_damaged_checkpoint_are_refused_before_a_model_loads(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    done = invoke(*FAST, "--trainer.max_epochs=2", "--checkpoint.keep=2")
    assert done.code == 0, done.err
    again = ("fit", f"--config={run_folder / 'config.yaml'}")
    with monkeypatch.context() as patch:
        patch.setattr(PolicyModule, "configure_model", lambda self: pytest.fail("a model loaded"))
        wide = invoke(*again, "--ckpt_path=last", "--model.backbone.hidden_size=64", small=False)
        assert wide.code == 2 and "model.backbone: wanted the model of the checkpoint, hidden_size 32" in wide.err
        assert "got hidden_size 64" in wide.err
        flip(checkpoints / "step-2.ckpt")
        refused = invoke(*again, f"--ckpt_path={checkpoints / 'step-2.ckpt'}", small=False)
        assert refused.code == 2 and "step-2.ckpt has the checksum" in refused.err
        assert f"newest whole one there: --ckpt_path={checkpoints / 'step-1.ckpt'}" in refused.err
    gone_on = invoke(*again, "--ckpt_path=last", small=False)
    assert gone_on.code == 0 and "step-2.ckpt is damaged and left out" in gone_on.err
    assert f"going on from {checkpoints / 'step-1.ckpt'}" in gone_on.err
    assert damage(checkpoints / "step-2.ckpt") is None, "the step was made again"


@pytest.mark.parametrize("strategy", ["auto", "fsdp2"])
def test_a_checkpoint_that_another_process_removes_just_then_is_one_message(
    strategy: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder = tmp_path / "run"
    assert invoke(*FAST, f"--trainer.strategy={strategy}").code == 0
    checkpoint, check = run_folder / "checkpoints" / "step-1.ckpt", preflight.check_inputs

    def removing(*args: Any, **options: Any) -> None:
        check(*args, **options)
        shutil.rmtree(checkpoint) if checkpoint.is_dir() else checkpoint.unlink()

    monkeypatch.setattr(preflight, "check_inputs", removing)
    more = ("--trainer.max_epochs=2", "--ckpt_path=last")
    resumed = invoke("fit", f"--config={run_folder / 'config.yaml'}", *more, small=False)
    assert resumed.code == 1 and "Traceback" not in resumed.err
    assert f"error: the checkpoint {checkpoint} was there when the run began and is gone" in resumed.err


@pytest.mark.slow
def test_a_full_disk_under_a_sharded_checkpoint(tmp_path: Path) -> None:
    """Files may not grow past what a rank's part takes: each rank ends, the checkpoint before stays, the run goes on later."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole, *SHARDED, ranks=2).codes == [0, 0]
    assert run(broken, *SHARDED, "--trainer.max_epochs=1", ranks=2).codes == [0, 0]
    shutil.rmtree(broken / "run" / "export")
    full = run(broken, *SHARDED, ranks=2, **{LIMIT: "40000"})
    assert full.codes == [1, 1] and "the checkpoint could not be written to" in full.printed, full.printed
    assert "Traceback" not in full.printed
    [left] = [path for path in (broken / "run" / "checkpoints").iterdir() if not path.name.startswith(".")]
    assert left.name == "step-1.ckpt" and damage(left) is None
    assert run(broken, *SHARDED, ranks=2).codes == [0, 0]
    assert differences(result(broken)["state"], result(whole)["state"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "__1_0.distcp", "meta.pt", "manifest.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "deleted"])
def test_a_damaged_part_of_a_sharded_checkpoint(name: str, how: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The checkpoint before is taken instead, on both ranks."""
    made = tmp_path_factory.getbasetemp() / "sharded"
    if not made.exists():
        assert run(made, *SHARDED, "--checkpoint.keep=2", "--trainer.max_epochs=2", ranks=2).codes == [0, 0]
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(made / "run", folder / "run")
    file = folder / "run" / "checkpoints" / "step-2.ckpt" / name
    if how == "deleted":
        file.unlink()
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-1] if name != "manifest.json" else b"{")
    else:
        flip(file)
    ended = run(folder, *SHARDED, "--checkpoint.keep=2", "--trainer.max_epochs=2", ranks=2)
    if name == "manifest.json" and how == "deleted":  # as those of earlier versions are: read as it is
        assert ended.codes == [0, 0]
        return
    assert ended.codes == [0, 0] and "step-2.ckpt is damaged and left out" in ended.printed, ended.printed
