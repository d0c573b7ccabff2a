"""Weights on their way to an engine that has a copy of its own: whole, counted, and what of them is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from delta_lightning.errors import RunError
from delta_lightning.models.sharding import full


class Received:
    """Names and tensors without gradient, whole where they are sharded. Read once, by whoever comes first.

    Args:
        weights: may be a collective: every rank reads it to its end.
        dtype: what the tensors are cast to; None leaves them. An engine that holds on to several gets narrow ones.
    """

    def __init__(self, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype | None = None) -> None:
        self.names: set[str] = set()
        self.num_bytes = 0  # before the cast
        self._stream = self._count(weights, dtype)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return self._stream

    def exhaust(self) -> None:
        """Read what is left."""
        for _ in self._stream:
            pass

    def refuse_missing(self, names: Collection[str], version: int) -> None:
        """Raises `RunError` if a parameter was not among them."""
        missing = sorted(set(names) - self.names)
        if missing:
            raise RunError(
                f"weights of version {version}: {len(missing)} of {len(names)} parameters were not sent, "
                f"the first of them {missing[0]}"
            )

    def _count(self, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
        for name, value in weights:
            self.names.add(name)
            self.num_bytes += value.numel() * value.element_size()
            yield name, full(value).to(dtype or value.dtype)


def tied_embedding(model: Any) -> str | None:
    """The name under which a tied head's weight comes, that of the embedding; None where the head is not tied."""
    if not model.config.tie_word_embeddings:
        return None
    embedding = model.get_input_embeddings().weight
    return next((name for name, value in model.named_parameters() if value is embedding), None)
