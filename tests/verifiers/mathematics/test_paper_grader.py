from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from delta_lightning.types import Status
from delta_lightning.verifiers.extraction.paper_box import PaperBox
from delta_lightning.verifiers.mathematics.comparison import TooHardError
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from delta_lightning.verifiers.mathematics.paper_grader import PaperGrader
from support.verdicts import completion_of, prompt_with

ROOT = Path(__file__).resolve().parents[3]

# (reference, answer, equal): what the released grader says, found by running its three graders.
AS_RELEASED = [
    ("42", "42", True),
    ("42", "43", False),
    ("1,234", "1234", True),
    ("\\frac{\\sqrt3}{2}", "\\frac{3}{2\\sqrt{3}}", True),
    ("\\sqrt{12}", "2\\sqrt{3}", True),
    ("x^2+2x+1", "(x+1)^2", True),
    ("(1,2)", "(1, 2)", True),
    ("(1,2)", "(2,1)", False),
    ("\\{1,2\\}", "\\{2,1\\}", True),
    ("\\frac{1}{2}", "0.5", True),
    ("\\pi", "3.14159265", True),
    ("\\pi", "3.14", False),
    ("Yes", "yes", True),
    # Where the default settings say otherwise:
    ("42", "42\\%", True),
    ("42", "41=42", True),
    ("5 cm", "5 m", True),
    ("Yes", "Yse", True),
    ("2\\cdot 3", "23", True),
    ("2\\cdot 3", "6", False),
    ("x^2", "X^2", True),
    ("42", "42_{7}", True),
]
# The reference and answer on which it differs from the released grader on purpose: equal here.
DIFFERENT = [
    ("1-\\frac{1}{\\mathrm e}", "1+\\frac{1}{\\mathrm e}", False),  # there: the LaTeX fails, an embedded 1 is compared
    ("42", "\\text{The answer is not }42 \\text{ indeed}", False),
    ("i", "\\sqrt{-1}", True),  # there: i is a letter
]


@pytest.mark.parametrize(("gold", "answer", "equal"), AS_RELEASED + DIFFERENT)
def test_verdicts(gold: str, answer: str, equal: bool) -> None:
    part = MathVerifier(extraction=PaperBox(), comparison=PaperGrader())
    verdict = part.score(prompt_with(gold), completion_of(f"so \\boxed{{{answer}}}"))
    assert verdict.status is (Status.CORRECT if equal else Status.INCORRECT)
    assert verdict.reward == float(equal)


def test_references() -> None:
    assert PaperGrader().usable("anything at all")
    assert not PaperGrader().usable("")
    assert PaperGrader().same("", "42") is None


def test_what_would_explode_is_not_tried() -> None:
    with pytest.raises(TooHardError):
        PaperGrader().same("42", "9^{9^{9^9}} x")
    PaperGrader().warm_up()


def test_the_preset_is_these_two_parts() -> None:
    preset = yaml.safe_load((ROOT / "configs" / "preset" / "paper_grader.yaml").read_text())
    verifier = preset["model"]["verifier"]
    assert verifier["class_path"] == "MathVerifier"
    assert verifier["init_args"] == {"extraction": {"class_path": "PaperBox"}, "comparison": {"class_path": "PaperGrader"}}
