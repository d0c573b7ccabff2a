from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from delta_lightning.data.references import check_references
from delta_lightning.errors import ConfigError, require
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


class ByName(EvenOnly):
    """Even answers for "toy", any text in `tests` for "code"."""

    def route(self, source: str) -> Verifier:
        if source == "toy":
            return EvenOnly()
        require(source == "code", "ByName", wanted="toy or code", got=source, remedy="Name one.")
        return Tested()

    def reference_fields(self) -> frozenset[str]:
        raise AssertionError("asked of the whole, not of the data set's own")


class Tested(EvenOnly):
    def reference_fields(self) -> frozenset[str]:
        return frozenset({"tests"})

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        return None if reference["tests"] else "no tests"


def test_each_data_set_is_checked_by_its_own_verifier() -> None:
    good = Problem(id="c1", question="q", reference={"tests": "x"}, source="code")
    bad = Problem(id="c2", question="q", reference={"tests": ""}, source="code")
    assert check_references([*problems(4), good, bad], ByName(), skip=True) == [*problems(4)[::2], good]
    with pytest.raises(ConfigError, match=r"2 of 4 .*p1: 1 is odd; c2: no tests"):
        check_references([*problems(2), good, bad], ByName())
    with pytest.raises(ConfigError, match="'tests', which Tested reads"):
        check_references([Problem(id="c3", question="q", reference={"answer": "2"}, source="code")], ByName(), skip=True)


def test_a_data_set_without_a_verifier_is_refused_even_with_skip() -> None:
    stranger = Problem(id="s", question="q", reference={"answer": "2"}, source="strange")
    with pytest.raises(ConfigError, match="toy or code, got 'strange'"):
        check_references([*problems(1), stranger], ByName(), skip=True)


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    check_references(problems(600), EvenOnly(), skip=True, tick=lambda done, total: seen.append((done, total)))
    assert seen == [(256, 600), (512, 600), (600, 600)]
