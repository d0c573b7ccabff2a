"""`--trainer.strategy` takes a strategy's name, such as `fsdp2`, or its class, and options after either.

Lightning gives the setting the type `str | Strategy`. jsonargparse takes every text as the `str` of it: a name drops the
options of the class before it in silence, a class without options stays a text, and no option can follow a name. Here a
text that names a class becomes that class before jsonargparse sees it. A test holds the private method that is replaced
against the pinned version.
"""

from __future__ import annotations

import argparse
from typing import Any

from jsonargparse import Namespace, _typehints, _util
from lightning.pytorch.strategies import DDPStrategy

from delta_lightning.cli import swap
from delta_lightning.strategies import FSDP2Strategy

SETTING = "trainer.strategy"
NAMED = {"auto": FSDP2Strategy, "fsdp2": FSDP2Strategy, "ddp": DDPStrategy}  # the class that options after a name are for


def install(parser: argparse.ArgumentParser) -> None:
    """Puts the replacement in place in one parser, which has the setting already."""
    action: Any = next(action for action in parser._actions if action.dest == SETTING)
    action.__class__ = StrategyOption


class StrategyOption(_typehints.ActionTypeHint):
    """The setting, in place of the action that jsonargparse made for it."""

    def _check_type(self, value: Any, append: bool = False, cfg: Any = None, mode: str | None = None) -> Any:
        """What jsonargparse calls with each value of the setting; `cfg` holds what was given before."""
        before = cfg.get(self.dest) if cfg else None
        if isinstance(value, str):
            value = _class_of(value, before) or value
        elif isinstance(before, str) and before in NAMED:
            cfg[self.dest] = Namespace(class_path=_path(NAMED[before]))  # type: ignore[no-untyped-call]
        checked = super()._check_type(value, append=append, cfg=cfg, mode=mode)  # type: ignore[no-untyped-call]
        if isinstance(checked, str) and isinstance(before, Namespace):
            swap.drop(before, checked)
        return checked


def _class_of(text: str, before: Any) -> dict[str, str] | None:
    """The class that a text names. A name is no class, unless it names the one that is there already."""
    for name, cls in NAMED.items():
        there = isinstance(before, Namespace) and before["class_path"] == _path(cls)
        if text in (cls.__name__, _path(cls), f"{cls.__module__}.{cls.__name__}") or (text == name != "auto" and there):
            return {"class_path": _path(cls)}
    return None


def _path(owner: type) -> str:
    """As jsonargparse writes it into a config."""
    return str(_util.get_import_path(owner))
