"""Decoding on several CPU cores: a Python thread for each part of the prompts, each with one core.

The operations of one decoding step are too small to be shared between cores: on two cores, two threads with half of the rows
each were about twice as fast as one thread with two OpenMP threads. PyTorch releases the interpreter's lock while it computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from queue import SimpleQueue
from typing import TypeVar

import torch

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Ended:
    """A task has no more items, or failed with `error`."""

    error: BaseException | None = None


def in_threads(tasks: Sequence[Callable[[], Iterator[Item]]]) -> Generator[Item, None, None]:
    """The items of all tasks in the order in which they come, each task in a thread of its own on one core, without gradient.

    A task's exception is raised here, once. Whatever ends this generator ends the threads, at their next item, and gives
    PyTorch back its number of threads.
    """
    items: SimpleQueue[Item | _Ended] = SimpleQueue()
    leave = threading.Event()
    before = torch.get_num_threads()
    workers = [threading.Thread(target=_work, args=(task, items, leave), daemon=True) for task in tasks]
    for worker in workers:
        worker.start()
    try:
        running = len(workers)
        while running:
            item = items.get()
            if not isinstance(item, _Ended):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                running -= 1
    finally:
        leave.set()
        for worker in workers:
            worker.join()
        torch.set_num_threads(before)


def _work(task: Callable[[], Iterator[Item]], items: SimpleQueue[Item | _Ended], leave: threading.Event) -> None:
    try:
        torch.set_num_threads(1)
        with torch.no_grad():
            for item in task():
                items.put(item)
                if leave.is_set():
                    return
    except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads the items
        items.put(_Ended(error))
    else:
        items.put(_Ended())


def shares(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """Up to `count` contiguous, non-empty shares of nearly equal size."""
    count = min(count, len(items))
    bounds = [len(items) * index // count for index in range(count + 1)] if count else [0]
    return [items[start:end] for start, end in pairwise(bounds)]
