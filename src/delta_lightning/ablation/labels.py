"""A name for every assigner of an ablation, short and unambiguous."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from delta_lightning.errors import ConfigError, require
from delta_lightning.interfaces import CreditAssigner


def labelled(assigners: Sequence[CreditAssigner] | Mapping[str, CreditAssigner]) -> dict[str, CreditAssigner]:
    """Assigners by name, in their order.

    A mapping brings its own names. Of a list, an assigner is named by its class; where a class stands more than once, by the
    class and the fields in which those of that class differ, as in `Delta(refinements=2)`.

    Raises:
        ConfigError: none was given, or the same one twice.
    """
    require(len(assigners) > 0, "assigners", wanted="at least one", got=[], remedy="Try --assigners='[Uniform, Delta]'.")
    if isinstance(assigners, Mapping):
        return {str(name): assigner for name, assigner in assigners.items()}
    names: dict[str, CreditAssigner] = {}
    for assigner in assigners:
        same = [other for other in assigners if type(other) is type(assigner)]
        name = type(assigner).__name__ if len(same) == 1 else _with_fields(assigner, _differing(same))
        if name in names:
            raise ConfigError(
                "assigners", wanted="each assigner once", got=f"{name} twice",
                remedy="Leave one out, or give names: --assigners='{one: Delta, two: Delta}'.",
            )  # fmt: skip
        names[name] = assigner
    return names


def _differing(same: Sequence[Any]) -> list[str]:
    """Fields that are not equal in all of them, in their order."""
    if not dataclasses.is_dataclass(same[0]):
        return []
    names = [item.name for item in dataclasses.fields(same[0])]
    return [name for name in names if any(getattr(one, name) != getattr(same[0], name) for one in same)]


def _with_fields(part: Any, names: Sequence[str]) -> str:
    shown = ", ".join(f"{name}={_short(getattr(part, name))}" for name in names)
    return f"{type(part).__name__}({shown})" if shown else type(part).__name__


def _short(value: Any) -> str:
    """A field's value; a part inside a part is written with the fields that are not its defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        unusual = [item.name for item in dataclasses.fields(value) if getattr(value, item.name) != _default(item)]
        return _with_fields(value, unusual)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_short(one) for one in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
