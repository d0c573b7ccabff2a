from __future__ import annotations

import pytest

from delta_lightning.data import Arithmetic
from delta_lightning.data.joined import Joined, places_by_source, source_names
from delta_lightning.types import Prompt


def test_one_after_the_other_under_new_names() -> None:
    parts = {
        "a": Arithmetic(digits=1, num_train=4, num_held_out=9).problems("held_out")[:4],
        "b": Arithmetic().problems("held_out")[:3],
    }
    joined = Joined(parts)
    assert len(joined) == 7 and joined.places() == {"a": range(4), "b": range(4, 7)}
    assert [each.id for each in joined] == [f"a/{p.id}" for p in parts["a"]] + [f"b/{p.id}" for p in parts["b"]]
    assert [each.source for each in joined[2:6]] == ["a", "a", "b", "b"]
    assert source_names(joined) == ["a", "b"] and source_names(parts["b"]) == ["arithmetic"]
    for outside in (7, -1):
        with pytest.raises(IndexError):
            joined[outside]


def test_places_of_prompts_by_data_set() -> None:
    prompts = [Prompt(id=str(n), text="", token_ids=(1,), source="xyx"[n], reference={}) for n in range(3)]
    assert places_by_source([*prompts, None]) == {"x": [0, 2], "y": [1]}
