"""Commands that read only some settings of a run's config, those that stand below `model` there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from delta_lightning.errors import require


def own_parts(args: Sequence[str], names: Sequence[str], beside: Sequence[str] = ()) -> list[str]:
    """The arguments, each config file replaced by its settings `model.NAME`, without `model`; they merge as in `fit`.

    `--model.NAME...`, as `fit` spells it, is understood too. `beside` are settings that do not stand below `model`.
    """
    found: list[str] = []
    rest = iter(args)
    for arg in rest:
        name, equals, value = arg.partition("=")
        if name not in ("--config", "-c"):
            found.append(_without_model(arg, names))
            continue
        given = value if equals else next(rest, "")
        path = Path(given)
        require("://" not in given, "--config", wanted="a local file", got=given, remedy="Fetch it first.")
        tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        parts = [pair for pair in _pairs(_below(tree, "model")) if pair[0].value in names]
        parts += [pair for pair in _pairs(tree) if pair[0].value in beside]
        found.append("--config=" + yaml.serialize(yaml.MappingNode("tag:yaml.org,2002:map", parts), Dumper=yaml.SafeDumper))
    return found


def _pairs(tree: Any) -> Sequence[tuple[Any, Any]]:
    return tree.value if isinstance(tree, yaml.MappingNode) else ()


def _below(tree: Any, key: str) -> Any:
    return next((node for name, node in _pairs(tree) if name.value == key), None)


def _without_model(arg: str, names: Sequence[str]) -> str:
    return next((arg.replace("--model.", "--", 1) for name in names if arg.startswith(f"--model.{name}")), arg)
