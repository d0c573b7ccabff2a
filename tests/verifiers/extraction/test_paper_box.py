from __future__ import annotations

import pytest

from delta_lightning.verifiers.extraction.paper_box import PaperBox


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1} then \\boxed{2", None),  # it does not go back
        ("\\boxed {42}", None),
        ("\\boxed 42", None),
        ("\\fbox{42}", None),
        ("\\boxed{1} then \\fbox{2}", "1"),
        ("\\boxed{x = \\boxed{5}}", "5"),
        ("\\boxed{\\}}", "\\"),  # an escaped brace closes
        ("\\boxed{}", ""),
        ("<think>\\boxed{42}</think>", "42"),
        ("42", None),
        ("", None),
    ],
)
def test_the_last_box_or_none(text: str, answer: str | None) -> None:
    assert PaperBox().answer(text, lambda candidate: True) == answer
