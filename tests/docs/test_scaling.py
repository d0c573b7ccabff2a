"""docs/scaling.md: its configs are accepted, and its scripts are shell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.cli import Invoke, invoke  # noqa: F401 - a fixture

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
CONFIGS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
SCRIPTS = re.findall(r"```(?:bash)?\n(.*?)```", re.sub(r"```yaml\n.*?```", "", PAGE, flags=re.DOTALL), flags=re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_its_configs_are_accepted(number: int, invoke: Invoke, tmp_path: Path) -> None:  # noqa: F811
    assert len(CONFIGS) == 3
    (tmp_path / "run.yaml").write_text(CONFIGS[number])
    outcome = invoke("fit", f"--config={tmp_path}/run.yaml", "--data.source=Arithmetic", "--print_config", small=False)
    assert outcome.code == 0, outcome.err
    assert "class_path: delta_lightning.samplers." in outcome.out and "mean_nats: 0.05" in outcome.out


def test_its_scripts_are_shell() -> None:
    assert len(SCRIPTS) == 5
    for script in SCRIPTS:
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_its_servers_are_a_list_for_the_command_line() -> None:
    [line] = [line for line in PAGE.splitlines() if line.startswith("servers=$(")]
    script = f'server=node3\n{line}\nprintf %s "[${{servers%,}}]"'
    made = subprocess.run(["bash", "-c", script], text=True, capture_output=True, check=True).stdout
    assert made == "[" + ",".join(f"'http://node3:{port}'" for port in range(8000, 8008)) + "]"
