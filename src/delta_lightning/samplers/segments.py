"""Keys and values of rows that decode together, right-aligned in buffers with room for the tokens to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GROWTH, LEAST_GROWTH = 1.25, 64  # room for new columns, as a factor and in columns: growing copies the segment


@dataclass(frozen=True)
class Part:
    """Rows to be taken over: keys and values of each layer, [rows, heads, columns, width], each row's tokens at the right.

    `lengths` are the rows' own columns, on the host; what stands left of them is padding. Each row is taken `repeats` times.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    lengths: Sequence[int]
    repeats: int = 1


def room_for(columns: int) -> int:
    """Columns of the buffers that are made for so many."""
    return max(columns + LEAST_GROWTH, int(columns * GROWTH))


class Segment:
    """Buffers of [rows, heads, capacity, width] for each layer; columns up to `end` are in use.

    A row's tokens are its last columns, without gaps, so that distances between columns are distances between positions and a
    sliding window is a number of columns. The columns left of a row are masked, and finite: a mask does not undo a NaN.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], lengths: list[int], end: int) -> None:
        self.keys, self.values, self.lengths, self.end = keys, values, lengths, end
        self.mask = self._additive_mask()

    @classmethod
    def joined(cls, parts: Sequence[Part]) -> Segment:
        """One segment of all rows of the parts, in their order, with room to grow. Copies them, layer by layer."""
        lengths = [length for part in parts for length in part.lengths for _ in range(part.repeats)]
        end = max(lengths)
        layers = range(len(parts[0].keys))
        keys = [_gathered([(part.keys[layer], part) for part in parts], lengths, end) for layer in layers]
        values = [_gathered([(part.values[layer], part) for part in parts], lengths, end) for layer in layers]
        return cls(keys, values, lengths, end)

    @property
    def size(self) -> int:
        """Rows."""
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        """Columns of the buffers."""
        return self.keys[0].shape[2]

    @property
    def span(self) -> int:
        """Columns of the longest row."""
        return max(self.lengths)

    def part(self, rows: Sequence[int] | None = None) -> Part:
        """The given rows, or all, without the columns that none of them uses."""
        kept = list(range(self.size)) if rows is None else list(rows)
        lengths = [self.lengths[row] for row in kept]
        columns = slice(self.end - max(lengths), self.end)
        if len(kept) == self.size:
            return Part([k[:, :, columns] for k in self.keys], [v[:, :, columns] for v in self.values], lengths)
        index = torch.tensor(kept, device=self.keys[0].device)
        return Part([k[index, :, columns] for k in self.keys], [v[index, :, columns] for v in self.values], lengths)

    def advance(self) -> None:
        """One more column, which the forward pass will `write`. The capacity must allow it."""
        assert self.end < self.capacity
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Put a layer's states of the newest column in place; views of all columns, and the additive mask."""
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.end - 1 : self.end] = key
        values[:, :, self.end - 1 : self.end] = value
        mask = None if self.mask is None else self.mask[:, None, None, : self.end]
        return keys[:, :, : self.end], values[:, :, : self.end], mask

    def attend(self) -> Tensor:
        """[rows, columns] bool: True on a row's own columns, for masks that transformers makes."""
        starts = self.end - torch.tensor(self.lengths, device=self.keys[0].device)
        return torch.arange(self.end, device=self.keys[0].device) >= starts[:, None]

    def _additive_mask(self) -> Tensor | None:
        """[rows, capacity]: 0, and -inf left of a row; None where none is shorter. A bool would be converted at each use."""
        if min(self.lengths) == self.end:
            return None
        first = self.keys[0]
        starts = self.end - torch.tensor(self.lengths, device=first.device)
        mask = first.new_zeros(self.size, self.capacity)
        return mask.masked_fill_(torch.arange(self.capacity, device=first.device) < starts[:, None], -torch.inf)


def _gathered(pieces: Sequence[tuple[Tensor, Part]], lengths: Sequence[int], end: int) -> Tensor:
    like = pieces[0][0]
    out = like.new_empty(len(lengths), like.shape[1], room_for(end), like.shape[3])
    row = 0
    for states, part in pieces:
        columns = max(part.lengths)
        states = states[:, :, states.shape[2] - columns :]
        rows = slice(row, row + len(states) * part.repeats)
        out[rows, :, : end - columns] = 0
        new = out[rows, :, end - columns : end]
        new.view(len(states), part.repeats, *new.shape[1:]).copy_(states[:, None])
        row = rows.stop
    return out
