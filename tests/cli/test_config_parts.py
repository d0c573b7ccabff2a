"""Commands that read a part of a run's config."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from delta_lightning.cli.config_parts import own_parts
from delta_lightning.errors import ConfigError

CONFIG = """
seed_everything: 3
model:
  backbone: {class_path: Tiny, init_args: {layers: 2}}
  verifier: MathVerifier
  sampler: HFSampler
data: {source: Arithmetic}
"""


def read(args: list[str]) -> list[object]:
    return [yaml.safe_load(arg.removeprefix("--config=")) if arg.startswith("--config=") else arg for arg in args]


@pytest.mark.parametrize("form", ["together", "apart", "short"])
def test_only_the_command_s_settings_of_a_file_are_kept(tmp_path: Path, form: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG)
    given = {"together": [f"--config={file}"], "apart": ["--config", str(file)], "short": ["-c", str(file)]}[form]
    got = read(own_parts([*given, "--port=3"], ("backbone", "sampler")))
    assert got == [{"backbone": {"class_path": "Tiny", "init_args": {"layers": 2}}, "sampler": "HFSampler"}, "--port=3"]


def test_settings_beside_the_model_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG)
    got = read(own_parts([f"--config={tmp_path}/run.yaml", "--data.path=x"], ("verifier",), ("data",)))
    assert got == [{"verifier": "MathVerifier", "data": {"source": "Arithmetic"}}, "--data.path=x"]


def test_files_without_a_model_give_nothing_and_flags_lose_their_prefix(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("trainer: {max_epochs: 3}\n")
    (tmp_path / "b.yaml").write_text("")
    args = [f"--config={tmp_path}/a.yaml", f"--config={tmp_path}/b.yaml", "--model.sampler.start=2", "--model.verifier=X"]
    assert read(own_parts(args, ("sampler",))) == [{}, {}, "--sampler.start=2", "--model.verifier=X"]


def test_addresses_are_refused() -> None:
    with pytest.raises(ConfigError, match="--config: wanted a local file"):
        own_parts(["--config=http://host/run.yaml"], ("sampler",))
