"""The export of a checkpoint is the run's own, byte for byte; what cannot be exported is refused with the reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from delta_lightning.__main__ import main
from delta_lightning.models import stored_weights
from support.kill_drill import run

ONE_STEP = ("--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=2")
KINDS = {
    "one device": (1, ()),
    "ddp": (2, ("--trainer.devices=2", "--trainer.strategy=ddp")),
    "fsdp2": (2, ("--trainer.devices=2", "--trainer.strategy=fsdp2")),
    "tied": (1, ("--model.backbone.tie_embeddings=true",)),
    "adapter": (1, ("--model.adapter=LoRA", "--model.adapter.rank=2")),
}


def exported(checkpoint: Path, out: Path, *more: str) -> int:
    return main(["export", f"--ckpt_path={checkpoint}", f"--out={out}", *more])


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    "kind", ["one device", "fsdp2", *(pytest.param(k, marks=pytest.mark.slow) for k in ("ddp", "tied", "adapter"))]
)
def test_it_is_the_runs_own_export(kind: str, tmp_path: Path) -> None:
    ranks, options = KINDS[kind]
    ended = run(tmp_path, *ONE_STEP, *options, ranks=ranks)
    assert ended.codes == [0] * ranks, ended.printed
    checkpoint = tmp_path / "run" / "checkpoints" / "step-1.ckpt"
    assert checkpoint.is_dir() == (kind == "fsdp2")
    assert exported(checkpoint, tmp_path / "out") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "run" / "export")
    if kind == "adapter":
        assert exported(checkpoint, tmp_path / "alone", "--weights=adapter") == 0
        assert "adapter_model.safetensors" in contents(tmp_path / "alone")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save({"global_step": 1, "state_dict": {}}, tmp_path / "step-1.ckpt")
    return tmp_path / "step-1.ckpt"


def test_nothing_is_overwritten(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    assert exported(file, tmp_path / "out") == 2
    assert "--out: wanted a folder that is not there yet" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_read(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").write_text("")
    for out, reason in ((tmp_path / "notes" / "model", "Not a directory"), (Path("/proc/none/model"), "/proc: ")):
        assert exported(file, out) == 2
        said = capsys.readouterr().err
        assert "--out: wanted a folder that can be written to" in said and reason in said and "free" not in said.lower()


def test_a_damaged_checkpoint_is_refused(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(file.read_bytes()[:-30])
    assert exported(file, tmp_path / "out") == 2
    assert "step-1.ckpt: wanted a checkpoint of this trainer, got a file that is none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


STATE = """
import torch
from torch.testing._internal.two_tensor import TwoTensor

class Moments(TwoTensor):
    pass

torch.serialization.add_safe_globals([Moments])
"""
SAVE = """
import sys, torch, eight_bits
values = eight_bits.Moments(torch.zeros(2), torch.zeros(2))
torch.save({"global_step": 1, "state_dict": {}, "optimizer_states": [values]}, sys.argv[1])
"""


def test_the_package_of_the_optimisers_state_is_imported_or_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "step-1.ckpt"
    (tmp_path / "eight_bits.py").write_text(STATE)
    subprocess.run([sys.executable, "-c", SAVE, file], env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=True)
    assert exported(file, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "wanted state of torch and of torchao, got eight_bits.Moments." in said and "eight_bits" not in sys.modules
    monkeypatch.setattr(stored_weights, "STATE_PACKAGES", ("eight_bits",))
    assert exported(file, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "wanted the package of its optimiser's state, eight_bits.Moments" in said and "pip install eight_bits." in said
    monkeypatch.syspath_prepend(tmp_path)
    with torch.serialization.safe_globals([]):  # what the package adds is taken back
        assert exported(file, tmp_path / "out") == 2
    assert "--config: wanted the run's config" in capsys.readouterr().err, "read, as far as the next thing that it lacks"


def test_one_without_a_config_asks_for_it(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exported(file, tmp_path / "out") == 2
    assert "--config: wanted the run's config, which this checkpoint does not hold" in capsys.readouterr().err


def test_paths_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--out=x"]) == 2
    assert "--ckpt_path: wanted a path" in capsys.readouterr().err


def test_an_adapter_of_a_base_that_needs_data_is_refused(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--adapter=LoRA", "--backbone=Tiny", "--backbone.warm_start={cache: false}")
    assert exported(file, tmp_path / "out", *given) == 2
    assert "wanted an adapter whose base can be loaded alone" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
