"""Provenance names the commit that really is checked out, and says nothing where there is none."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import torch

from delta_lightning.report.provenance import _commit, provenance, without_secrets


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *settings, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_commit_and_dirty_flag(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("1")
    assert _commit(file) == {"commit": None, "dirty": None}
    git(tmp_path, "init", "-q")
    assert _commit(file) == {"commit": None, "dirty": None}, "a checkout that does not track the file is somebody else's"
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "x")
    assert _commit(file) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "untracked").write_text("")
    assert _commit(file)["dirty"] is False
    file.write_text("2")
    assert _commit(file)["dirty"] is True


def test_is_plain_and_complete() -> None:
    record = provenance(seeds={"seed": 3}, packages=("no-such-package",))
    assert json.loads(json.dumps(record)) == record
    assert record["seeds"] == {"seed": 3} and record["versions"]["no-such-package"] is None
    assert record["versions"]["torch"] == torch.__version__
    assert record["threads"] == torch.get_num_threads() and record["device"] and record["time"].endswith("+00:00")


def test_secrets_are_left_out_of_the_command() -> None:
    given = ["fit", "--model.verifier.api_key=abc", "--hf_token", "def", "--model.sampling.max_new_tokens=8", "--seed=1"]
    assert without_secrets(given) == [
        "fit", "--model.verifier.api_key=...", "--hf_token", "...", "--model.sampling.max_new_tokens=8", "--seed=1",
    ]  # fmt: skip
