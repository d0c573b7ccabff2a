"""Parts of other distributions."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from delta_lightning.cli.plugins import GROUP, listing
from support.cli import Invoke

PART = """
from dataclasses import dataclass
from delta_lightning.losses import TokenMean

@dataclass(frozen=True, kw_only=True)
class ThirdPartyMean(TokenMean):
    '''A mean from elsewhere.

    Args:
        power: of the mean.
    '''

    power: int = 1
"""


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution with one plug-in that works and two that do not."""
    site = tmp_path / "site"
    info = site / "toy_rewards-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-rewards\nVersion: 1.2\n", encoding="utf-8")
    points = f"[{GROUP}]\nmean = toy_plugin_parts\nbroken = toy_plugin_broken\nmissing = toy_plugin_missing:Part\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    (site / "toy_plugin_parts.py").write_text(PART, encoding="utf-8")
    (site / "toy_plugin_broken.py").write_text("raise RuntimeError('half\\ninstalled')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.usefixtures("distribution")
def test_a_plug_in_is_known_by_its_short_name_and_a_broken_one_costs_a_line(invoke: Invoke) -> None:
    done = invoke("--model.reduction=ThirdPartyMean", "--model.reduction.power=2", "--print_config")
    assert done.code == 0, done.err
    assert yaml.safe_load(done.out)["model"]["reduction"] == {
        "class_path": "toy_plugin_parts.ThirdPartyMean", "init_args": {"power": 2},
    }  # fmt: skip
    assert done.err.splitlines() == [
        "plug-in broken = toy_plugin_broken (toy-rewards 1.2) skipped: RuntimeError: half installed",
        "plug-in missing = toy_plugin_missing:Part (toy-rewards 1.2) skipped: "
        "ModuleNotFoundError: No module named 'toy_plugin_missing'",
    ]
    misspelt = invoke("--model.reduction=ThirdPartyMaen")
    assert misspelt.code == 2 and "Did you mean ThirdPartyMean?" in misspelt.err


@pytest.mark.usefixtures("distribution")
def test_the_contract_suite_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import entry_points

    from delta_lightning.interfaces import Reduction
    from delta_lightning.testing import parts
    from delta_lightning.testing.laws import check, check_part

    working = [point for point in entry_points(group=GROUP) if point.name == "mean"]
    monkeypatch.setattr(parts, "entry_points", lambda group: working)
    found = {cls.__name__: cls for cls in parts.concrete_parts(Reduction)}
    check_part(found["ThirdPartyMean"])
    check(found["ThirdPartyMean"]())


@pytest.mark.usefixtures("distribution")
def test_the_list_names_them_without_importing_them() -> None:
    assert "mean = toy_plugin_parts (toy-rewards 1.2)\n" in listing()
    assert "broken = toy_plugin_broken (toy-rewards 1.2)\n" in listing()
