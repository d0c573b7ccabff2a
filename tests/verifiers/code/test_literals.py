from __future__ import annotations

import json
import math
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.verifiers.code.cells.literals import MAX_BYTES, MAX_DEPTH, Decoder, Encoder, Refused, dump, load


def no_handle(value: Any) -> list[Any]:
    raise Refused(f"a {type(value).__name__}")


ENCODE, DECODE = Encoder(no_handle), Decoder(no_handle)


def there_and_back(value: Any) -> Any:
    return DECODE(load(dump(ENCODE(value))))


def same(a: Any, b: Any) -> bool:
    """Equal with the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple | deque | array):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    return bool(a == b) or (a != a and b != b)


VALUES = [
    None, True, 0, -1, 10**4000, -(10**5000), 0.1, -0.0, float("inf"), -float("inf"), float("nan"), 1e308, 5e-324,
    1 + 2j, complex(float("nan"), -0.0), "", "a\x00\n\ud800é", b"\x00\xff", bytearray(b"ab"), [], (), {}, set(), frozenset({1}),
    [1, [2, (3, {4: {5}})]], {(1, 2): [None], "a": 1.0}, range(1, 10**20, 3), Counter("aab"), OrderedDict(b=1, a=2),
    deque([1, 2], 5), deque([1]), array("d", [1.5]), Decimal("1.10"), Fraction(-1, 3), date(2024, 2, 29),
    datetime(2024, 1, 1, 2), timedelta(days=-1, seconds=3), int, str, ..., NotImplemented,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_plain_data_comes_back_with_its_types(value: Any) -> None:
    assert same(there_and_back(value), value)


def test_numbers_keep_their_sign_and_their_kind() -> None:
    assert math.copysign(1, there_and_back(-0.0)) == -1
    assert [type(value) for value in there_and_back([1, 1.0, True])] == [int, float, bool]


def test_dictionaries_with_a_default_come_back_without_their_function() -> None:
    got = there_and_back(defaultdict(list, {"a": [1]}))
    assert type(got) is defaultdict and got == {"a": [1]} and got.default_factory is None


def test_views_are_views_again() -> None:
    source = {"a": 1, "b": 2}
    assert there_and_back(source.keys()) == source.keys() and there_and_back(source.items()) == source.items()
    assert list(there_and_back(source.values())) == [1, 2]


def test_a_subclass_crosses_as_the_value_that_it_holds() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

        def __add__(self, other: object) -> Any:
            raise AssertionError("asked")

    point = namedtuple("point", "x y")
    colour = IntEnum("colour", "RED GREEN")
    assert same(there_and_back([Liar(3), point(1, 2), colour.GREEN]), [3, (1, 2), 2])


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
))  # fmt: skip
def test_any_nest_of_plain_data(value: Any) -> None:
    assert repr(there_and_back(value)) == repr(value)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_caps_of_depth_and_size() -> None:
    assert there_and_back(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    circle: list[Any] = []
    circle.append(circle)
    for value in (nested(MAX_DEPTH + 1), circle, "x" * (MAX_BYTES + 1), ["y" * 1000] * 5000, list(range(2_000_000))):
        with pytest.raises(Refused):
            dump(ENCODE(value))


def test_a_cap_that_was_reached_does_not_stay() -> None:
    encode = Encoder(no_handle)
    with pytest.raises(Refused):
        encode("x" * (MAX_BYTES + 1))
    assert encode("y" * 100) == "y" * 100


HOSTILE = [
    {}, [], [[]], ["?"], ["__class__"], [1], [None], ["l", {}], ["s", ["l"]], ["d", 1], ["d", ["l"], 1], ["i", "xyz"], ["i", 5],
    ["f", "1"], ["f", ["l"]], ["b", "zz"], ["r", 1, 2, 0], ["r", "a", 1, 1], ["N", "a"], ["F", "1", "0"], ["T", "eval"],
    ["T", "Exception"], ["K", "exit"], ["date", "x"], ["datetime", 1], ["timedelta", 10**30, 0, 0], ["a", "O", 1], ["a"],
    ["q"], ["q", "a", 1], ["C", 1], ["o", "p", 10**9, "f"], ["fs", ["d"]], ["c", "1", []], ["B", None],
    ["i"], ["i", "1", "2"], ["di", ["l"], 1],
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE)
def test_what_no_encoder_made_is_refused_and_nothing_else_happens(data: Any) -> None:
    with pytest.raises(Refused):
        DECODE(data)


TAGS = st.sampled_from(["l", "t", "d", "s", "i", "f", "N", "F", "q", "a", "o", "T"])


@given(st.recursive(st.none() | st.integers() | TAGS | st.text(max_size=3), lambda inner: st.lists(inner, max_size=4)))
def test_any_message_is_a_value_or_refused(data: Any) -> None:
    try:
        value = DECODE(load(json.dumps(data).encode()))
    except Refused:
        return
    assert value is None or type(value).__module__ in ("builtins", "collections", "decimal", "fractions", "array", "datetime")


@pytest.mark.parametrize("data", [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b"[" * 100_000, b"1" * 5000, b"1 2"])
def test_bytes_that_are_no_message(data: bytes) -> None:
    with pytest.raises(Refused):
        load(data)
