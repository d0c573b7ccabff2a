"""The laws of verifiers catch what they say: one planted defect for each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from delta_lightning.interfaces import Verifier
from delta_lightning.testing.verifier_laws import check_extraction, check_verifier
from delta_lightning.types import Example, Status
from delta_lightning.verifiers.combine.by_source import BySource
from delta_lightning.verifiers.extraction.excerpts import LastLine
from support import planted_verifiers as planted


def test_an_honest_one_passes() -> None:
    check_verifier(planted.Honest())


@pytest.mark.parametrize(
    ("part", "law"),
    [
        (planted.Raises(), r"the text '\\x00': ERROR \(ValueError: embedded null byte\)"),
        (planted.Dies(), "ERROR .the verifier process ended with exit status 1"),
        (planted.Drifts(), "the text '': two verdicts"),
        (planted.NotANumber(), r"an example: ERROR .score\(\) returned measures with inf"),
        (planted.Blames(), "no answer, which .* refuses: INCORRECT"),
        (planted.Accepts(), r"accepts: ERROR \(not a text\)"),
        (planted.Careless(), r"refuse_reference\(\) accepts a reference with no answer"),
        (planted.Explodes(), r"refuse_reference\(\) with no answer raises KeyError"),
        (planted.Writes(), "changes the prompt or the completion"),
        (planted.Undeclared(), "only declared fields: INCORRECT"),
        (planted.Wrong(), "an example: INCORRECT"),
        (planted.NoLimit(), r"limit_seconds\(\): 0.0"),
        (planted.OneLine(), r"check\(\): not a sequence of lines"),
        (planted.Unready(), "does not run in worker processes"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Verifier) else "",
)
def test_planted_defects(part: Verifier, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_verifier(part)


def test_without_a_reference_to_try_it_asks_for_one() -> None:
    picky = planted.Picky()
    with pytest.raises(AssertionError, match=r"refused \(not a table\); give one with --reference"):
        check_verifier(picky)
    with pytest.raises(AssertionError, match="refuses an example's reference"):
        check_verifier(picky, [Example(reference={"answer": "1"}, text="", status=Status.NO_ANSWER)])
    with pytest.raises(AssertionError, match="an example's reference lacks answer"):
        check_verifier(picky, [Example(reference={}, text="", status=Status.NO_ANSWER)])


def test_where_no_member_brings_an_example_a_data_set_must_be_named() -> None:
    mixed = BySource(verifiers={"a": planted.Picky()})
    with pytest.raises(AssertionError, match="--source"):
        check_verifier(mixed)


def test_a_module_that_imports_a_heavy_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "import torch\nfrom delta_lightning.verifiers.exact import ExactMatch\nclass Judge(ExactMatch): ...\n"
    (tmp_path / "heavy_judge.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    import heavy_judge  # type: ignore[import-not-found]

    with pytest.raises(AssertionError, match="importing heavy_judge imports torch"):
        check_verifier(heavy_judge.Judge())


def test_an_extraction_that_fails() -> None:
    check_extraction(LastLine())
    with pytest.raises(AssertionError, match="answer\\(\\) of '42' raises IndexError"):
        check_extraction(planted.Second())
    with pytest.raises(AssertionError, match="UnicodeEncodeError"):
        check_extraction(planted.Fragile())


def test_the_laws_load_nothing_heavy_into_the_verifiers() -> None:
    code = "import delta_lightning.verifiers.parts, sys; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
