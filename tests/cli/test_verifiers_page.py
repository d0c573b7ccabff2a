"""docs/verifiers.md: every block of YAML is a config that parses, is written out whole, and builds the same part again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import yaml

from delta_lightning.cli.config_files import settle
from delta_lightning.interfaces import PromptSource, Verifier
from delta_lightning.testing.parts import concrete_parts
from delta_lightning.verifiers.extraction.extraction import Extraction
from support.part_samples import MAKERS

PAGE = (Path(__file__).parents[2] / "docs" / "verifiers.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)]
SEAMS = {"verifier": Verifier, "source": PromptSource, "extraction": Extraction}


def built(name: str, settings: dict[str, Any]) -> tuple[Any, str]:
    """The part, and its settings as a run folder keeps them."""
    settle()
    concrete_parts(SEAMS[name])  # imports them, so that short names are known
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=SEAMS[name])
    given = parser.parse_object({"part": settings})
    return parser.instantiate_classes(given).part, parser.dump(given)


def round_trip(name: str, settings: dict[str, Any]) -> Any:
    part, written = built(name, settings)
    assert "Unable to serialize" not in written
    again, _ = built(name, yaml.safe_load(written)["part"])
    assert again == part
    return part


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["model"]["verifier"]["class_path"])
def test_blocks(block: dict[str, Any]) -> None:
    assert isinstance(round_trip("verifier", block["model"]["verifier"]), Verifier)
    if "data" in block:
        source = round_trip("source", block["data"]["source"])
        assert (
            set(block["data"]["templates"]) <= set(source.sources) == set(block["model"]["verifier"]["init_args"]["verifiers"])
        )


@pytest.mark.parametrize("name", ["verifier", "extraction"])
def test_every_default_can_be_written_out(name: str) -> None:
    """A resolved config that cannot be read again would make a run that nobody can repeat."""
    for cls in concrete_parts(SEAMS[name]):
        if cls.__name__ not in MAKERS:
            assert type(round_trip(name, {"class_path": f"{cls.__module__}.{cls.__name__}"})) is cls


def test_every_verifier_and_extraction_has_a_place_on_the_page() -> None:
    elsewhere = {"Anywhere", "PaperBox", "Continuation"}  # of mathematics and code, on their own pages
    names = {cls.__name__ for seam in (Verifier, Extraction) for cls in concrete_parts(seam)}
    assert not {name for name in names - elsewhere if f"`{name}`" not in PAGE}
