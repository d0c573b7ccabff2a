"""Which parts there are, a stranger's too, and what every part is."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pickle
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from delta_lightning import interfaces
from delta_lightning.credit.proxies import GradientProxy
from delta_lightning.models import Adapter, RowLayout
from delta_lightning.types import Need
from delta_lightning.verifiers.extraction.extraction import Extraction

PACKAGES = (
    "advantages",
    "corrections",
    "credit",
    "data",
    "filters",
    "losses",
    "models",
    "samplers",
    "shaping",
    "verifiers.parts",
)
SEAMS: tuple[type, ...] = (
    interfaces.PromptSource, interfaces.Sampler, interfaces.Verifier, interfaces.RewardShaping, interfaces.RolloutFilter,
    interfaces.AdvantageEstimator, interfaces.RolloutCorrection, interfaces.CreditAssigner, interfaces.TokenWeighting,
    interfaces.PolicyLoss, interfaces.Penalty, interfaces.Reduction, GradientProxy, Extraction, RowLayout,
    interfaces.ProblemFilter, Adapter,
)  # fmt: skip


def concrete_parts(seam: type) -> list[type]:
    """Every concrete subclass of `seam` in this package and in installed plug-ins, by name."""
    homes = {"delta_lightning"}
    for package in PACKAGES:
        importlib.import_module(f"delta_lightning.{package}")
    for plugin in entry_points(group="delta_lightning.plugins"):
        plugin.load()
        homes.add(plugin.module.partition(".")[0])

    def walk(cls: type) -> Iterator[type]:
        children: list[type] = cls.__subclasses__()
        for child in children:
            yield child
            yield from walk(child)

    found = {cls for cls in walk(seam) if not inspect.isabstract(cls) and cls.__module__.partition(".")[0] in homes}
    return sorted(found, key=lambda cls: cls.__qualname__)


def seam_of(cls: type) -> type:
    """The seam that a part's class subclasses. Raises `TypeError` if there is none, or more than one."""
    seams = [seam for seam in SEAMS if issubclass(cls, seam)]
    if len(seams) != 1:
        names = ", ".join(seam.__name__ for seam in (seams or SEAMS))
        raise TypeError(
            f"{cls.__qualname__} must subclass exactly one seam; {'it subclasses' if seams else 'there are'} {names}"
        )
    return seams[0]


def check_part(cls: type, part: Any = None) -> None:
    """A frozen, keyword-only dataclass without slots, documented field by field, picklable.

    Args:
        cls: the class. part: an instance of it; one with the defaults unless given.
    """
    assert dataclasses.is_dataclass(cls), "not a dataclass"
    params = cls.__dataclass_params__  # type: ignore[attr-defined]
    assert params.frozen, "not frozen"
    assert all(item.kw_only for item in dataclasses.fields(cls)), "not keyword-only"
    assert "__slots__" not in vars(cls), "slots leave a ghost class behind"
    doc = inspect.getdoc(cls) or ""
    described = doc.partition("Args:")[2]
    missing = [item.name for item in dataclasses.fields(cls) if f"{item.name}:" not in described]
    assert not missing, f"fields without a line in the docstring's Args: {missing}"
    part = cls() if part is None else part
    assert pickle.loads(pickle.dumps(part)) == part, "does not survive pickling"
    if hasattr(part, "needs"):
        needs = part.needs()
        assert isinstance(needs, frozenset) and all(isinstance(need, Need) for need in needs), (
            "needs(): not a frozenset of Need"
        )
