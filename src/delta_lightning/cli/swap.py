"""A class swap drops every argument of the class before it.

jsonargparse keeps arguments of the same name when `class_path` changes: a config with `GSPO(clip_low=3e-4)` and
`--model.loss=ClippedSurrogate` would clip at 3e-4, silently. One private function of jsonargparse decides this; it is
replaced here, and a test holds the replacement against the pinned version.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace, _typehints

_dropped: dict[str, None] = {}


def install() -> None:
    """Put the replacement in place; calling it again changes nothing."""
    _typehints.discard_init_args_on_class_path_change = _drop_all


def take_dropped() -> list[str]:
    """One line per swap since the last call, naming the arguments that were not the old class's own defaults."""
    lines = list(_dropped)
    _dropped.clear()
    return lines


def _drop_all(_parser: Any, before: Any, after: Any) -> None:
    """What jsonargparse calls with the old and the new {class_path, init_args}; `before` is changed in place."""
    if not before or "init_args" not in before or before["class_path"] == after["class_path"]:
        return
    drop(before, after["class_path"], _names(after.get("init_args")))


def drop(before: Any, after: str, kept: Sequence[str] = ()) -> None:
    """Takes the arguments of `before`, {class_path, init_args}, away, and notes those that are not given anew, by `kept`."""
    arguments = before.get("init_args") or {}
    old = {name: arguments.pop(name) for name in _names(arguments)}
    news = {name: value for name, value in _unusual(before["class_path"], old).items() if name not in kept}
    if news:
        values = ", ".join(f"{name}={value}" for name, value in news.items())
        _dropped[f"{_short(after)} replaces {_short(before['class_path'])}; dropped with it: {values}"] = None


def _unusual(class_path: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that differ from the class's defaults."""
    module, _, name = class_path.rpartition(".")
    owner = getattr(importlib.import_module(module), name) if module else None
    known = inspect.signature(owner).parameters if owner is not None else {}
    return {key: value for key, value in arguments.items() if key not in known or not _same(known[key].default, value)}


def _same(default: Any, value: Any) -> bool:
    """True if `value`, a part still written as class_path and init_args perhaps, is the default."""
    if isinstance(value, Namespace) and "class_path" in value and dataclasses.is_dataclass(default):
        cls = type(default)
        given = value.get("init_args") or {}
        fields = {item.name for item in dataclasses.fields(default)}
        named = value["class_path"] in (cls.__name__, f"{cls.__module__}.{cls.__qualname__}")
        short = value["class_path"].rpartition(".")[2] == cls.__name__
        return (named or short) and all(name in fields and _same(getattr(default, name), given[name]) for name in _names(given))
    return bool(default == value)


def _names(arguments: Any) -> list[str]:
    return list(vars(arguments) if isinstance(arguments, Namespace) else arguments or ())


def _short(class_path: str) -> str:
    return class_path.rpartition(".")[2]
