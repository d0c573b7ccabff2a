from __future__ import annotations

import pytest

from delta_lightning.verifiers.extraction.extraction import Extraction, LastBox


def _never(text: str) -> bool:
    raise AssertionError("there is no choice, so nothing may be parsed")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{41}, no wait, \\fbox{42}", "42"),
        ("\\boxed{41} and \\boxed{42", "41"),
        ("the answer is $42$", None),
        ("", None),
    ],
)
def test_only_the_last_box_counts(text: str, answer: str | None) -> None:
    assert LastBox().answer(text, _never) == answer


@pytest.mark.parametrize(("text", "answer"), [("42", "42"), (" \\boxed{ 42 } ", "42"), ("x = \\boxed{42}.", "42"), ("", "")])
def test_a_reference_is_its_box_or_all_of_it(text: str, answer: str) -> None:
    assert LastBox().reference(text, _never) == answer


def test_the_seam_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Extraction()  # type: ignore[abstract]
