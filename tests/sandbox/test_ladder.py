"""The order of the rungs."""

from __future__ import annotations

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.sandbox.ladder import LADDER, wanted


def test_the_best_comes_first_and_the_unsafe_last_and_only_when_asked_for() -> None:
    assert [kind.name for kind in LADDER] == ["bwrap-root", "bwrap-user", "unshare", "landlock", "unsafe"]
    assert [kind.name for kind in wanted("auto", allow_unsafe=False)] == ["bwrap-root", "bwrap-user", "unshare", "landlock"]
    assert list(wanted("auto", allow_unsafe=True)) == list(LADDER)
    assert [kind.name for kind in wanted("unsafe", allow_unsafe=True)] == ["unsafe"]
    assert [kind.name for kind in wanted("landlock", allow_unsafe=False)] == ["landlock"]


@pytest.mark.parametrize("name", ["docker", "", "bwrap"])
def test_a_name_that_is_no_rung_is_refused_with_the_names(name: str) -> None:
    with pytest.raises(ConfigError, match="bwrap-root, bwrap-user, unshare, landlock, unsafe"):
        wanted(name, allow_unsafe=True)


def test_unsafe_needs_the_second_word() -> None:
    with pytest.raises(ConfigError, match="allow_unsafe"):
        wanted("unsafe", allow_unsafe=False)
