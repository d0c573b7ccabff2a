"""What rank 0 does reaches all ranks, failures too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.samplers.servers.together import first_does
from delta_lightning.trainer.ranks import Ranks
from support.sampling import context
from support.world import run_ranks


def on_a_rank(work: Callable[[], Any]) -> Any:
    ranks = Ranks.current()
    given = context(None, rank=ranks.rank, world_size=ranks.size, share=ranks.all_objects)
    try:
        return ranks.rank, first_does(given, work)
    except Exception as error:  # noqa: BLE001 -- what each rank sees is what the test asks
        return ranks.rank, type(error).__name__, str(error)


def its_rank() -> int:
    return Ranks.current().rank


def refuses() -> None:
    raise ConfigError("a", wanted="b", got="c", remedy="d.")


def breaks() -> None:
    raise ZeroDivisionError("unforeseen")


def test_every_rank_gets_what_rank_0_did_or_why_it_could_not() -> None:
    assert run_ranks(2, on_a_rank, its_rank) == [(0, 0), (1, 0)]
    message = "a: wanted b, got c. d."
    assert run_ranks(2, on_a_rank, refuses) == [(0, "ConfigError", message), (1, "ConfigError", message)]
    first, second = run_ranks(2, on_a_rank, breaks)
    assert first == (0, "ZeroDivisionError", "unforeseen")
    assert second == (1, "RunError", "rank 0 failed: ZeroDivisionError: unforeseen")


def test_one_rank_is_rank_0() -> None:
    assert first_does(context(None), lambda: 7) == 7
    with pytest.raises(RunError, match="no"):
        first_does(context(None), lambda: (_ for _ in ()).throw(RunError("no")))
