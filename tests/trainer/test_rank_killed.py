"""A rank that is killed in the middle of an update ends the run: soon, with a message, and the same command goes on."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from delta_lightning.cli.resume import read_checkpoint
from support.cli import shell
from support.kill_drill import KILL, RUN


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp2", "ddp"])
def test_the_other_rank_says_so_and_ends(strategy: str, tmp_path: Path) -> None:
    """The second of two ranks, which Lightning starts, is killed (-9) between the micro-batches of the second step's update."""

    def start(kill: str) -> CompletedProcess[str]:
        return shell(
            *RUN, f"--run_dir={tmp_path / 'run'}", "--trainer.devices=2", f"--trainer.strategy={strategy}", cwd=tmp_path,
            PYTHONPATH=str(Path(__file__).parents[1]), **{KILL: kill},
        )  # fmt: skip

    ended = start("updating:6:1")
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.count("error: another rank has ended or does not answer") == 1 and "Traceback" not in ended.stderr
    saved = tmp_path / "run" / "checkpoints"
    assert [path.name for path in saved.iterdir()] == ["step-1.ckpt"]
    assert read_checkpoint(str(saved / "step-1.ckpt")).step == 2
    again = start("")
    assert again.returncode == 0 and f"going on from {saved / 'step-1.ckpt'}" in again.stderr, again.stderr
    assert [path.name for path in saved.iterdir()] == ["step-3.ckpt"]
