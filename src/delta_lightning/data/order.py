"""The order in which training prompts are drawn: a number -> which of them. No state but what a number tells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from delta_lightning.data.interleaving import schedule, turns
from delta_lightning.functional.random import stable_hash


class Order(ABC):
    """An endless sequence of places in the training prompts.

    Laws: a pure function of the number and of what it was built from, so that a run is resumed by the count of prompts drawn,
    and any number of ranks and workers draws the same.
    """

    @abstractmethod
    def at(self, number: int) -> int:
        """Place of draw `number`, 0, 1, 2, ..."""


class Passes(Order):
    """Every prompt once a pass.

    A pass ends with its last full step of `per_step` prompts, so that without refill no prompt stands twice in a step.

    Args:
        size: prompts; 8 bytes of each are held while shuffled. per_step: of a rollout step. seed: of the permutations, one for
            each pass. shuffle: False takes them in order.
    """

    def __init__(self, size: int, per_step: int, *, seed: int, shuffle: bool) -> None:
        self._size, self._length = size, size // per_step * per_step
        self._shuffled = Shuffled(size, seed, "order") if shuffle else None

    def at(self, number: int) -> int:
        """Place `number % length` of permutation `number // length`, length being the prompts of a pass."""
        index, within = divmod(number, self._length)
        return within if self._shuffled is None else self._shuffled.at(index, within)


class Windows(Order):
    """Every row once a pass, window after window, shuffled within each; for rows that come one after another.

    A pass ends as in `Passes`, so the rows that it leaves out are of its last window.

    Args:
        size: rows. window: rows shuffled together. per_step, seed, shuffle: as in `Passes`.
    """

    def __init__(self, size: int, window: int, per_step: int, *, seed: int, shuffle: bool) -> None:
        self._size, self._window, self._length = size, window, size // per_step * per_step
        self._seed, self._shuffle = seed, shuffle
        self._latest: tuple[tuple[int, int], Shuffled] | None = None

    def at(self, number: int) -> int:
        """Place `number % length` of pass `number // length`."""
        index, within = divmod(number, self._length)
        window, place = divmod(within, self._window)
        if not self._shuffle:
            return within
        if self._latest is None or self._latest[0] != (index, window):
            size = min(self._window, self._size - window * self._window)
            self._latest = ((index, window), Shuffled(size, self._seed, "window", str(window)))
        return window * self._window + self._latest[1].at(index, place)


class Weighted(Order):
    """Several data sets in fixed shares, each passed over at its own pace.

    Among the first n draws, for any n, a data set of weight w has n w of them up to less than one (`interleaving.schedule`).
    A data set that is used up begins again, in a new permutation, whatever the others do: nothing is left out and the
    shares stay. A prompt that comes twice in a rollout step is taken once.

    Args:
        groups: data set -> places of its prompts. weights: data set -> weight, the same names. seed, shuffle: as in `Passes`.
    """

    def __init__(self, groups: Mapping[str, Sequence[int]], weights: Mapping[str, float], *, seed: int, shuffle: bool) -> None:
        names = sorted(weights)
        self._groups = [groups[name] for name in names]
        counts = turns({name: weights[name] for name in names})
        self._counts, self._turns = list(counts.values()), schedule(list(counts.values()))
        seen = [0] * len(names)
        self._before: list[int] = []  # turns of the same data set earlier in the period
        for chosen in self._turns:
            self._before.append(seen[chosen])
            seen[chosen] += 1
        self._shuffled = [
            Shuffled(len(group), seed, "order", name) if shuffle else None
            for name, group in zip(names, self._groups, strict=True)
        ]

    def at(self, number: int) -> int:
        """The data set whose turn it is, and of that the place of its own count."""
        period, turn = divmod(number, len(self._turns))
        chosen = self._turns[turn]
        group, shuffled = self._groups[chosen], self._shuffled[chosen]
        index, within = divmod(period * self._counts[chosen] + self._before[turn], len(group))
        return group[within if shuffled is None else shuffled.at(index, within)]


class Shuffled:
    """Keyed permutations of `size` things, a new one for each pass; the latest is kept, 8 bytes for each thing."""

    def __init__(self, size: int, seed: int, *purpose: str) -> None:
        self._size = size
        self._keys: tuple[str | int, ...] = (seed, *purpose)
        self._latest: tuple[int, Tensor] | None = None

    def at(self, index: int, within: int) -> int:
        """Place `within` of permutation `index`."""
        if self._latest is None or self._latest[0] != index:
            generator = torch.Generator().manual_seed(stable_hash(*self._keys, index))
            self._latest = (index, torch.randperm(self._size, generator=generator))
        return int(self._latest[1][within])
