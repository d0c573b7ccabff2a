"""Fetches an update from the trainer over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from delta_lightning.samplers.servers.transfers.fetch import fetch
from delta_lightning.samplers.vllm_plugin.receiver import Receiver, Update


class HTTPReceiver(Receiver):
    """The receiving end of `HTTPTransfer`: one request for each update, its answer loaded while it comes in."""

    def weights(self, update: Update) -> Iterator[tuple[str, Tensor]]:
        """Tensor by tensor. Raises `ConnectionError` where the trainer refuses or goes away."""
        for name, tensor in fetch(update.source):
            yield name, tensor.to(self.device)
