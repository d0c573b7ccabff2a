from __future__ import annotations

import pytest

from delta_lightning.data import PromptLength
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import FilterContext
from support.problems import problem


def test_bounds_belong_to_what_is_kept() -> None:
    context = FilterContext(count_tokens=lambda problems: [len(each.question) for each in problems])
    problems = [problem("x" * length, length) for length in range(6)]
    assert PromptLength(min_tokens=2, max_tokens=4).open(context)(problems) == [False, False, True, True, True, False]
    assert PromptLength().splits() == {"train", "held_out"}


@pytest.mark.parametrize("bounds", [(3, 2), (-1, 2)])
def test_refusals(bounds: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="PromptLength"):
        PromptLength(min_tokens=bounds[0], max_tokens=bounds[1])
