"""What every combinator passes on to its members."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Status
from delta_lightning.verifiers.combine.first_that_applies import FirstThatApplies
from delta_lightning.verifiers.combine.gate import Gate
from delta_lightning.verifiers.combine.members import FAILED
from delta_lightning.verifiers.combine.weighted_sum import WeightedSum
from support.members import ASKED, WARMED, Says
from support.verdicts import completion_of, prompt_with

KINDS: dict[str, Callable[[Verifier, Verifier], Verifier]] = {
    "weighted sum": lambda first, second: WeightedSum(members={"first": first, "then": second}),
    "gate": lambda first, second: Gate(first=first, then=second),
    "first that applies": lambda first, second: FirstThatApplies(members={"first": first, "then": second}),
}
every = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


@every
def test_reference_fields_are_all_of_theirs(make: Callable[..., Verifier]) -> None:
    whole = make(Says(), Says(reads="tests"))
    assert whole.reference_fields() == {"answer", "tests"}
    assert whole.refuse_reference({"answer": "1", "tests": "1"}) is None
    assert whole.refuse_reference({"answer": "1", "tests": "bad"}) == "then: it is bad"


@every
def test_check_names_the_member(make: Callable[..., Verifier]) -> None:
    assert tuple(make(Says(), Says(name="b")).check()) == ("first: line of a", "then: line of b")
    with pytest.raises(ConfigError, match="then: sandbox: wanted one"):
        make(Says(), Says(here=False)).check()


@every
def test_limits_add_up(make: Callable[..., Verifier]) -> None:
    assert make(Says(limit=2.0), Says(limit=3.5)).limit_seconds() == 5.5
    assert make(Says(limit=2.0), Says()).limit_seconds() == 2.0
    assert make(Says(), Says()).limit_seconds() is None


@every
def test_all_are_warmed_up(make: Callable[..., Verifier]) -> None:
    WARMED.clear()
    make(Says(name="a"), Says(name="b")).warm_up()
    assert WARMED == ["a", "b"]


@every
def test_routes_its_members(make: Callable[..., Verifier]) -> None:
    routed = make(Says(deeper="x"), Says(name="b")).route("gsm8k")
    assert routed == make(Says(name="x:gsm8k"), Says(name="b"))


@every
@pytest.mark.parametrize("status", [status.value for status in FAILED])
def test_a_failing_member_is_the_failure_of_the_whole(make: Callable[..., Verifier], status: str) -> None:
    ASKED.clear()
    verdict = make(Says(name="broken", status=status, reward=1.0), Says(name="behind")).score(prompt_with(1), completion_of(""))
    assert verdict.status is Status(status) and verdict.reward == 0.0 and verdict.components == {}
    assert verdict.reason == "first: says broken" and ASKED == ["broken"]


@every
def test_survives_pickling(make: Callable[..., Verifier]) -> None:
    whole = make(Says(), Says(name="b"))
    assert pickle.loads(pickle.dumps(whole)) == whole
