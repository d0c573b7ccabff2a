"""Every concrete part, found by walking the seams, is held to the laws of its seam. A new part needs no new test here."""

from __future__ import annotations

import importlib

import pytest

from delta_lightning.testing.laws import CHECKS, SEAMS, check, check_part, concrete_parts
from support.part_samples import EXAMPLES, made

PARTS = [(seam, part) for seam in SEAMS for part in concrete_parts(seam)]


def _name(value: type) -> str:
    return value.__name__


@pytest.mark.parametrize(("seam", "part"), PARTS, ids=_name)
def test_is_a_part(seam: type, part: type) -> None:
    check_part(part, made(part))
    package = importlib.import_module(part.__module__.rpartition(".")[0])
    if package.__name__.startswith("delta_lightning.verifiers"):
        return  # imports nothing by itself: worker processes stay light
    assert part.__name__ in package.__all__, f"not in {package.__name__}.__all__"


@pytest.mark.parametrize(("seam", "part"), [pair for pair in PARTS if pair[0] in CHECKS], ids=_name)
def test_obeys_the_laws_of_its_seam(seam: type, part: type) -> None:
    check(made(part), EXAMPLES.get(part.__name__, ()))


def test_finds_the_parts_of_the_published_method() -> None:
    names = {part.__name__ for _, part in PARTS}
    assert {
        "Delta",
        "Uniform",
        "GroupStandardised",
        "ClippedSurrogate",
        "TokenMean",
        "Constant",
        "NoCorrection",
        "ZeroVariance",
    } <= names


@pytest.mark.parametrize("seam", SEAMS, ids=_name)
def test_no_seam_has_an_annotated_attribute(seam: type) -> None:
    """One would silently disable the command line's type checks of its parts."""
    assert not vars(seam).get("__annotations__")
