from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from delta_lightning.data.references import check_references
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Problem, Prompt, Status, Verdict


class EvenOnly(Verifier):
    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        return Verdict(status=Status.INCORRECT, reward=0.0)

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        return None if int(reference["answer"]) % 2 == 0 else f"{reference['answer']} is odd"


def problems(count: int) -> list[Problem]:
    return [Problem(id=f"p{i}", question="q", reference={"answer": str(i)}, source="toy") for i in range(count)]


def test_usable_references_pass_in_order() -> None:
    even = problems(20)[::2]
    assert check_references(even, EvenOnly()) == even


def test_refused_references_are_counted_and_named() -> None:
    with pytest.raises(ConfigError) as caught:
        check_references(problems(20), EvenOnly())
    text = str(caught.value)
    assert "10 of 20" in text and "p1: 1 is odd" in text and "p9: 9 is odd" in text and "p11" not in text


def test_skip_leaves_them_out() -> None:
    assert check_references(problems(20), EvenOnly(), skip=True) == problems(20)[::2]


@pytest.mark.parametrize("skip", [False, True])
def test_a_missing_field_is_refused_even_with_skip(skip: bool) -> None:
    row = Problem(id="p", question="q", reference={"solution": "2"}, source="toy")
    with pytest.raises(ConfigError, match=r"'answer'.*'solution'"):
        check_references([row], EvenOnly(), skip=skip)


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    check_references(problems(600), EvenOnly(), skip=True, tick=lambda done, total: seen.append((done, total)))
    assert seen == [(256, 600), (512, 600), (600, 600)]
