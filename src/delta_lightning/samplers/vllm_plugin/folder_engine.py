"""Loads an update from a folder that the trainer has written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from delta_lightning.samplers.servers.transfers.folder import read_folder
from delta_lightning.samplers.vllm_plugin.receiver import Receiver, Update


class FolderReceiver(Receiver):
    """The receiving end of `FolderTransfer`."""

    def weights(self, update: Update) -> Iterator[tuple[str, Tensor]]:
        """Tensor by tensor. Raises `OSError` where the folder is not seen from here."""
        for name, tensor in read_folder(Path(update.source["path"])):
            yield name, tensor.to(self.device)
