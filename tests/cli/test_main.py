"""What the command answers without importing torch."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from delta_lightning import __version__
from delta_lightning.__main__ import said_if_slow

LIGHT = """
import sys
from delta_lightning.__main__ import main
code = main({args!r})
heavy = [name for name in ("torch", "lightning", "jsonargparse", "transformers") if name in sys.modules]
assert not heavy, heavy
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--version"], f"delta-lightning {__version__}"),
        ([], "delta-lightning fit --config"),
        (["--help"], "delta-lightning fit --config"),
        (["plugins"], "plug-in"),
    ],
)
def test_light_commands_import_nothing_heavy(args: list[str], said: str) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT.format(args=args)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout


@pytest.mark.parametrize(("rank", "seconds", "said"), [("0", 0.0, "loading it\n"), ("1", 0.0, ""), ("0", 60.0, "")])
def test_what_takes_long_is_said_by_rank_0(
    rank: str, seconds: float, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    with said_if_slow("loading it", seconds):
        time.sleep(0.3)
    assert capsys.readouterr().err == said
