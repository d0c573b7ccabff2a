"""docs/scaling.md: its configs are accepted, and its scripts are shell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"```(?:bash)?\n(.*?)```", PAGE, flags=re.DOTALL)


def test_it_names_every_machine_and_every_full_size_config() -> None:
    """tests/cli/test_full_size_configs.py holds these to what they are for."""
    machines = {f"configs/machine/{path.name}" for path in (ROOT / "configs" / "machine").glob("*.yaml")}
    assert machines == set(re.findall(r"configs/machine/\w+\.yaml", PAGE))
    for path in (ROOT / "configs" / "experiment").glob("*.yaml"):
        assert ("architecture: configs/models/" in path.read_text(encoding="utf-8")) == bool(
            re.search(rf"[/`]{re.escape(path.name)}`", PAGE)
        ), path.name


def test_its_scripts_are_shell() -> None:
    assert len(SCRIPTS) == 6
    for script in SCRIPTS:
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_its_servers_are_a_list_for_the_command_line() -> None:
    [line] = [line for line in PAGE.splitlines() if line.startswith("servers=$(")]
    script = f'server=node3\n{line}\nprintf %s "[${{servers%,}}]"'
    made = subprocess.run(["bash", "-c", script], text=True, capture_output=True, check=True).stdout
    assert made == "[" + ",".join(f"'http://node3:{port}'" for port in range(8000, 8008)) + "]"
