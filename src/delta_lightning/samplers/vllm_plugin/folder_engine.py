"""Loads an update from a folder that the trainer has written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from delta_lightning.samplers.servers.transfers.folder import INDEX
from delta_lightning.samplers.vllm_plugin.receiver import Receiver, Update


class FolderReceiver(Receiver):
    """The receiving end of `FolderTransfer`."""

    def weights(self, update: Update) -> Iterator[tuple[str, Tensor]]:
        """Tensor by tensor, in the order of the shards. Raises `OSError` where the folder is not seen from here."""
        from safetensors import safe_open

        folder = Path(update.source["path"])
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        for name in index["shards"]:
            with safe_open(folder / name, framework="pt") as shard:
                for key in shard.offset_keys():
                    yield key, shard.get_tensor(key).to(self.device)
