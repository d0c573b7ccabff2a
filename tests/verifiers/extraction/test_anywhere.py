from __future__ import annotations

import json
from pathlib import Path

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.types import Status
from delta_lightning.verifiers.extraction.anywhere import Anywhere, Kind
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from delta_lightning.verifiers.mathematics.staged import Staged
from support.verdicts import completion_of, prompt_with

KINDS: dict[str, Kind] = {"latex": "latex", "expr": "expression", "string": "choice"}


def _anything(text: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{41} and then the final answer is $42$", "41"),  # boxes first
        ("First $1$, then the final answer is $42$. I hope it is correct.", "42"),
        ("It is $41$, no, $42$.", "42"),
        ("the number is 1,000.99 euros", "1000.99"),
        ("so 50 percent", "50\\%"),
        ("\\boxed{1} and \\boxed{2}", "1,2"),
        ("$1$ and $2$", "1, 2"),
        ("it is (1+2)*3", "(1+2)*3"),
        ("no idea", None),
        ("", None),
    ],
)
def test_where_it_looks(text: str, answer: str | None) -> None:
    assert Anywhere().answer(text, _anything) == answer


def test_kinds_are_kept_apart() -> None:
    text = "So it is **C** because $42$ is 7."
    assert Anywhere(kinds=("choice",)).answer(text, _anything) == "C"
    assert Anywhere(kinds=("choice",), letters="AB").answer(text, _anything) is None
    assert Anywhere(kinds=("latex",)).answer(text, _anything) == "42"
    assert Anywhere(kinds=("expression",)).answer(text, _anything) == "7"


def test_the_first_usable_candidate_is_taken_and_otherwise_the_first() -> None:
    text = "It is $42$, hence $\\frac{1}{$"
    assert Anywhere(kinds=("latex",)).answer(text, lambda candidate: candidate == "42") == "42"
    assert Anywhere(kinds=("latex",)).answer(text, lambda candidate: False) == "\\frac{1}{"


def test_a_worked_solution_may_be_the_reference() -> None:
    part = MathVerifier(extraction=Anywhere())
    assert part.refuse_reference({"answer": "We find $x = 3$, so the answer is $\\boxed{4}$."}) is None
    verdict = part.score(prompt_with("We find $x = 3$, so the answer is $\\boxed{4}$."), completion_of("It is 4."))
    assert verdict.status is Status.CORRECT
    assert part.score(prompt_with("4"), completion_of("no idea")).status is Status.NO_ANSWER


@pytest.mark.parametrize("settings", [{"kinds": ()}, {"kinds": ("prose",)}, {"letters": ""}, {"letters": "A|B"}])
def test_range_checks(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Anywhere(**settings)  # type: ignore[arg-type]


def _as_the_suite_says(config: dict[str, object]) -> MathVerifier:
    """math-verify's own defaults, changed by what a case of its test-suite names."""
    names = config.get("match_types", ["latex", "expr"])
    precision = config.get("precision", 6)
    assert isinstance(names, list) and isinstance(precision, int)
    return MathVerifier(
        extraction=Anywhere(kinds=tuple(KINDS[name] for name in names)),
        comparison=Staged(
            digits=precision,
            variables="named" if config.get("strict", True) else "interchangeable",
            relations="any_form" if config.get("allow_set_relation_comp", False) else "reference_set",
            chains="last_link",
        ),
        max_answer_chars=100_000,
    )


@pytest.mark.data
def test_cases_of_the_math_verify_suite_with_the_setting_that_each_names(delta_data: Path) -> None:
    cases = [json.loads(line) for line in (delta_data / "math_verify_cases.jsonl").read_text().splitlines()]
    assert len(cases) == 269
    different = []
    for case in cases:
        part = _as_the_suite_says(case.get("config") or {})
        verdict = part.score(prompt_with(case["gold"]), completion_of(case["pred"]))
        if (verdict.status is Status.CORRECT) != case["expected"]:
            different.append((case["id"], verdict.status))
    # The suite expects 1 - 1/e to equal 1 + 1/e.
    assert different == [("math_verify-264", Status.INCORRECT)]
