"""What SLURM is asked, and what is said when it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from delta_lightning.errors import RunError
from delta_lightning.trainer.callbacks.requeue import requeue


def scontrol(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "scontrol").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "13", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}, "12_3"),
    ],
)
def test_the_job_or_the_task_of_an_array(
    environment: dict[str, str], job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol(tmp_path, f'echo "$@" > {tmp_path}/asked', monkeypatch)
    assert requeue(environment) == job
    assert (tmp_path / "asked").read_text() == f"requeue {job}\n"


def test_a_refusal_says_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol(tmp_path, "echo 'Requested operation is presently disabled for job 12' >&2; exit 1", monkeypatch)
    with pytest.raises(
        RunError, match=r"job 12 could not be requeued: Requested operation is presently disabled .*last-if-any"
    ):
        requeue({"SLURM_JOB_ID": "12"})
    scontrol(tmp_path, "exit 3", monkeypatch)
    with pytest.raises(RunError, match="could not be requeued: exit code 3"):
        requeue({"SLURM_JOB_ID": "12"})


def test_no_scontrol_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match=r"could not be requeued: .*scontrol"):
        requeue({"SLURM_JOB_ID": "12"})
