"""Names of assigners."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from delta_lightning.ablation.labels import labelled
from delta_lightning.credit import Delta, Uniform
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit


@dataclass(frozen=True, kw_only=True)
class Around(CreditAssigner):
    inner: CreditAssigner = field(default_factory=Uniform)
    limits: tuple[float, ...] = (0.5,)

    def credit(self, view: StepView) -> Credit:
        return self.inner.credit(view)


def names(*assigners: CreditAssigner) -> list[str]:
    return list(labelled(assigners))


def test_class_names_and_differing_fields() -> None:
    assert names(Uniform(), Delta(low=0.5)) == ["Uniform", "Delta"]
    assert names(Delta(), Uniform(), Delta(high=1.5)) == ["Delta(high=1.2)", "Uniform", "Delta(high=1.5)"]
    assert names(Delta(refinements=0, low=0.1), Delta(refinements=0)) == ["Delta(low=0.1)", "Delta(low=0.8)"]


def test_parts_inside_parts() -> None:
    assert names(Around(), Around(inner=Delta(refinements=2))) == [
        "Around(inner=Uniform)",
        "Around(inner=Delta(refinements=2))",
    ]
    assert names(Around(limits=(1.0, 2.5)), Around()) == ["Around(limits=[1, 2.5])", "Around(limits=[0.5])"]


def test_a_mapping_brings_its_names() -> None:
    one, two = Delta(), Delta()
    assert labelled({"one": one, "two": two}) == {"one": one, "two": two}


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="assigners: wanted each assigner once, got Delta twice"):
        names(Delta(), Delta())
    with pytest.raises(ConfigError, match="at least one"):
        names()
