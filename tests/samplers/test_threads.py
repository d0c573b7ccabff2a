"""Iterators run side by side: every item, any failure, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from delta_lightning.samplers.threads import in_threads, shares


def numbers(start: int, fails: bool = False) -> Iterator[int]:
    assert torch.get_num_threads() == 1 and not torch.is_grad_enabled()
    yield from range(start, start + 50)
    if fails:
        raise ValueError("no more numbers")


def test_every_item_comes_once_and_in_the_order_of_its_task() -> None:
    got = list(in_threads([lambda: numbers(0), lambda: numbers(100)]))
    assert [n for n in got if n < 100] == list(range(50)) and [n for n in got if n >= 100] == list(range(100, 150))


def test_a_failure_is_raised_and_ends_the_others() -> None:
    threads, alive = torch.get_num_threads(), threading.active_count()
    with pytest.raises(ValueError, match="no more numbers"):
        list(in_threads([lambda: numbers(0, fails=True), lambda: numbers(100)]))
    assert (torch.get_num_threads(), threading.active_count()) == (threads, alive)


def test_leaving_early_ends_the_threads() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 0

    alive = threading.active_count()
    running = in_threads([endless, endless])
    next(running)
    running.close()
    assert threading.active_count() == alive


def test_shares_are_contiguous_and_never_empty() -> None:
    assert [list(part) for part in shares(range(5), 2)] == [[0, 1], [2, 3, 4]]
    assert [list(part) for part in shares(range(2), 5)] == [[0], [1]]
    assert shares([], 3) == []
