"""What a run writes down must build the same run again, the defaults of its parts included."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml

from delta_lightning.testing.parts import SEAMS, concrete_parts
from support.cli import Invoke, invoke

__all__ = ["invoke"]

PARTS = [cls for seam in SEAMS for cls in concrete_parts(seam)]
# One of each seam whose parts hold parts by default.
NESTED = {
    "verifier": "MathVerifier", "credit": "Normalise", "correction": "CombinedCorrection", "sampler": "RecordingSampler",
}  # fmt: skip


def _default(item: dataclasses.Field[Any]) -> object:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


@pytest.mark.parametrize("cls", PARTS, ids=lambda cls: cls.__qualname__)
def test_no_default_is_a_collection_of_parts(cls: type) -> None:
    """The command line writes a part that is a default, but not parts inside of a default list or table."""
    for item in dataclasses.fields(cls):
        default = _default(item)
        inside = default.values() if isinstance(default, dict) else default if isinstance(default, list | tuple) else ()
        assert not any(dataclasses.is_dataclass(value) for value in inside), item.name


@pytest.mark.parametrize(("key", "name"), NESTED.items())
def test_parts_inside_of_parts_are_written_and_read_back(key: str, name: str, invoke: Invoke, tmp_path: Any) -> None:
    needed = ("--model.sampler.path=tape",) if name == "RecordingSampler" else ()
    first = invoke(f"--model.{key}={name}", *needed, "--print_config")
    assert first.code == 0 and "Unable to serialize" not in first.out, first.err
    (tmp_path / "resolved.yaml").write_text(first.out, encoding="utf-8")
    again = invoke("fit", f"--config={tmp_path / 'resolved.yaml'}", "--print_config", small=False)
    assert again.code == 0, again.err
    assert yaml.safe_load(again.out) == yaml.safe_load(first.out)


def test_a_list_of_parts_is_written_and_read_back(invoke: Invoke, tmp_path: Any) -> None:
    first = invoke(
        '--model.credit={"class_path": "Compose", "init_args": {"assigners": [{"class_path": "Delta"}]}}', "--print_config"
    )
    assert first.code == 0 and "Unable to serialize" not in first.out, first.err
    (tmp_path / "resolved.yaml").write_text(first.out, encoding="utf-8")
    again = invoke("fit", f"--config={tmp_path / 'resolved.yaml'}", "--print_config", small=False)
    assert again.code == 0 and yaml.safe_load(again.out) == yaml.safe_load(first.out), again.err
