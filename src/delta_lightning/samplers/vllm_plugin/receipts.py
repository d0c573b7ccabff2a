"""What arrived in a worker: names, bytes, and a checksum of each tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from delta_lightning.samplers.servers.checksum import sampled_checksum


class Receipt:
    """Written while the weights of one version pass by.

    Attributes:
        version: of the weights. num_bytes: of what arrived. checksums: name -> `sampled_checksum`, in the order of arrival.
    """

    def __init__(self, version: int) -> None:
        self.version, self.num_bytes = version, 0
        self.checksums: dict[str, int] = {}

    def note(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The weights, written down as they are handed on."""
        for name, tensor in weights:
            self.num_bytes += tensor.numel() * tensor.element_size()
            self.checksums[name] = sampled_checksum(tensor)
            yield name, tensor

    def as_json(self) -> dict[str, Any]:
        """For the trainer."""
        return {"version": self.version, "num_bytes": self.num_bytes, "checksums": self.checksums}
