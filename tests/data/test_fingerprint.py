"""A checksum of training prompts that knows where two runs' data first differ."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.data import fingerprint
from delta_lightning.data.fingerprint import Fingerprint, data_changed
from delta_lightning.types import Prompt


def prompts(count: int) -> list[Prompt | None]:
    return [
        Prompt(id=f"p{n}", text="t", token_ids=(n, n + 1), source="s", reference={"answer": str(n), "b": [1, {"c": 2.5}]})
        for n in range(count)
    ]


def of(rows: list[Prompt | None]) -> Fingerprint:
    return Fingerprint.of(rows, count=len(rows))


@pytest.mark.parametrize(
    "change",
    [
        {"id": "x"}, {"source": "x"}, {"token_ids": (1,)}, {"reference": {"answer": "7", "b": [1, {"c": 2.5}]}},
        {"reference": {"b": [1, {"c": 2.5}]}},
    ],
)  # fmt: skip
def test_every_field_that_matters_counts(change: dict[str, Any]) -> None:
    before, after = prompts(5), prompts(5)
    assert of(before).same(of(after)) and data_changed(of(before), of(after), str) is None
    row = after[3]
    assert row is not None
    after[3] = dataclasses.replace(row, **change)
    assert not of(before).same(of(after)) and of(after).first_difference(of(before)) == (3, 3)
    error = data_changed(of(before), of(after), lambda number: f"id {number}")
    assert error is not None and "first difference at prompt 4, here 'id 3'" in str(error) and "accept_changed" in str(error)


def test_the_order_of_keys_does_not_count_and_that_of_prompts_does() -> None:
    before, after = prompts(3), prompts(3)
    row = after[1]
    assert row is not None
    after[1] = dataclasses.replace(row, reference=dict(reversed(list(row.reference.items()))))
    assert of(before).same(of(after))
    assert of([after[1], after[0], after[2]]).first_difference(of(before)) == (0, 0)
    after[2] = None
    assert of(after).first_difference(of(before)) == (2, 2)


def test_prompts_added_at_the_end() -> None:
    error = data_changed(of(prompts(1200)), of(prompts(1300)), str)
    assert error is not None and "the 1,200 training prompts" in str(error)
    assert "got 1,300 prompts; the first 1,200 are the same" in str(error)
    error = data_changed(of(prompts(7)), of(prompts(5)), str)
    assert error is not None and "got 5 prompts; the first 5 are the same" in str(error)


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_blocks_of_different_lengths_find_the_place(before: int, after: int, data: st.DataObject) -> None:
    """With room for 4 blocks only: the block that is named holds the first difference, and none before it differs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "BLOCKS", 4)
        old, new = prompts(before), prompts(after)
        place = data.draw(st.integers(0, after - 1))
        new[place] = None
        one, two = of(old), of(new)
        assert len(one.blocks) <= 4 and len(two.blocks) <= 4
        found = two.first_difference(one)
        first = min(place, before)
        if found is None:
            # One begins with the other, as far as whole blocks show: the place lies past the shorter one.
            assert first >= min(len(one.blocks) * one.size, before, after) - 0
        else:
            assert found[0] <= first <= found[1]


def test_state_and_back() -> None:
    one = of(prompts(9))
    assert Fingerprint.from_state(one.state()) == one


def test_rows_that_were_not_all_looked_at() -> None:
    rows = prompts(10)
    one = Fingerprint.of(rows[::3], count=10, stride=3)
    row = rows[6]
    assert row is not None
    rows[6] = dataclasses.replace(row, id="other")
    assert Fingerprint.of(rows[::3], count=10, stride=3).first_difference(one) == (6, 8)
    error = data_changed(one, of(prompts(12)), str)
    assert error is not None and "got 12 prompts; other rows" in str(error)
