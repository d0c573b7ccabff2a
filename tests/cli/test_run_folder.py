"""Where a run writes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from delta_lightning.cli import run_folder
from delta_lightning.errors import ConfigError
from support.cli import Invoke, invoke, loads

__all__ = ["invoke", "loads"]


def test_now_becomes_the_time_and_reaches_the_ranks_that_are_started() -> None:
    environment: dict[str, str] = {}
    folder = run_folder.resolve("runs/{now}", environment)
    assert re.fullmatch(r"runs/\d{8}-\d{6}", str(folder.relative_to(Path.cwd())))
    child = {**environment, "LOCAL_RANK": "1"}
    assert run_folder.resolve("runs/{now}", child) == folder


def test_a_folder_of_an_earlier_run_of_this_process_is_not_taken() -> None:
    assert run_folder.resolve("b", {run_folder.VARIABLE: "/a"}) == Path.cwd() / "b"


@pytest.mark.parametrize(
    "launcher", [{"TORCHELASTIC_RUN_ID": "1"}, {"SLURM_NTASKS": "2"}, {"LOCAL_RANK": "0"}, {"NODE_RANK": "1"}]
)
def test_now_is_refused_under_launchers(launcher: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="--run_dir=runs/my-run"):
        run_folder.resolve("runs/{now}", dict(launcher))
    assert run_folder.resolve("runs/a", dict(launcher)).name == "a"


def test_one_slurm_task_may_use_now() -> None:
    assert run_folder.resolve("runs/{now}", {"SLURM_NTASKS": "1"}).parent.name == "runs"


def test_a_folder_with_a_run_is_taken_only_by_its_own_checkpoint(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    (run / "config.yaml").touch()
    run_folder.check(run, ckpt_path=str(run / "checkpoints" / "step-1.ckpt"))
    for path in (None, str(other / "checkpoints" / "step-1.ckpt")):
        with pytest.raises(ConfigError, match=r"config\.yaml"):
            run_folder.check(run, ckpt_path=path)
    run_folder.check(other, ckpt_path=None)
    assert not other.exists()


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_rows_after_the_checkpoint_are_dropped_on_a_resume(tmp_path: Path) -> None:
    before = run_folder.loggers(tmp_path)[0]
    assert isinstance(before, CSVLogger)
    for step in range(4):
        before.log_metrics({"update/loss": step / 3, "only_here": 1.0} if step == 1 else {"update/loss": step / 3}, step)
    lines = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5
    after = run_folder.loggers(tmp_path)[0]
    run_folder.keep_metrics(tmp_path, after, before_step=2)
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines() == lines[:3]
    after.log_metrics({"update/loss": 9.0}, 2)
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()[:3] == lines[:3]


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_a_row_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    """As a full disk or a lost machine leaves it."""
    (tmp_path / "metrics.csv").write_text("a,step,update/loss\n1.0,0,0.5\n2.0,1,0.5\n2.0", encoding="utf-8")
    run_folder.keep_metrics(tmp_path, run_folder.loggers(tmp_path)[0], before_step=2)
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:] == ["1.0,0,0.5", "2.0,1,0.5"]


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_a_resume_that_ends_while_rows_are_written_again_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a,step,update/loss\n1.0,0,0.5\n2.0,1,0.5\n"
    (tmp_path / "metrics.csv").write_text(text, encoding="utf-8")
    logger = run_folder.loggers(tmp_path)[0]
    monkeypatch.setattr(logger, "save", lambda: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        run_folder.keep_metrics(tmp_path, logger, before_step=2)
    run_folder.keep_metrics(tmp_path, run_folder.loggers(tmp_path)[0], before_step=2)
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines() == text.splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("name", ["other/step-3.ckpt", "export/model.safetensors"])
def test_nothing_begins_anew_over_a_run_that_has_got_somewhere(tmp_path: Path, name: str) -> None:
    """Its checkpoints lie in a folder of another name, or were removed after its export."""
    (tmp_path / "config.yaml").touch()
    run_folder.check(tmp_path, ckpt_path=None, anew=True)
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=f"got '{name} there'"):
        run_folder.check(tmp_path, ckpt_path=None, anew=True)


def test_two_runs_never_write_to_one_folder_at_once(invoke: Invoke, loads: list[str], tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from delta_lightning.cli.run_folder import claim\n"
    code += "held = claim(Path(sys.argv[1])); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        outcome = invoke("--ckpt_path=last-if-any")
        other.kill()
    assert outcome.code == 2 and f"in use by process {other.pid} on " in outcome.err and "Traceback" not in outcome.err
    assert loads == []
    run_folder.claim(tmp_path / "run").close()  # a run that was killed leaves nothing behind
