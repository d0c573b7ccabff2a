"""Weights through a folder that trainer and servers see: shards written, loaded, removed."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.samplers.servers.client import Client
from delta_lightning.samplers.servers.transfers.sender import Counted, Round
from delta_lightning.samplers.servers.transfers.transfer import Delivered, Target, TransferSession, WeightTransfer
from delta_lightning.samplers.vllm_plugin import FOLDER

INDEX = "delta_lightning_update.json"


@dataclass(frozen=True, kw_only=True)
class FolderTransfer(WeightTransfer):
    """The first training rank writes each update as safetensors shards, and the servers load them.

    For servers that cannot reach the trainer over the network, and share a file system with it. Each update has a new folder of
    its own under `path`, which is removed once the servers have loaded it; nothing else there is touched. Space for one copy of
    the model is needed.

    Args:
        path: an existing folder that all machines see under the same name.
        shard_mib: size from which a shard is closed, MiB; so much is held beside the model.
    """

    path: str
    shard_mib: int = 1024

    def __post_init__(self) -> None:
        require(self.shard_mib >= 1, "FolderTransfer.shard_mib", wanted="at least 1", got=self.shard_mib, remedy="Raise it.")

    def backend(self) -> str:
        """The receiver of our plug-in."""
        return FOLDER

    def check(self) -> None:
        """The folder must be there. Raises `ConfigError`."""
        require(Path(self.path).is_dir(), "FolderTransfer.path", wanted="an existing folder that all machines see",
                got=self.path, remedy="Make it, or name another.")  # fmt: skip

    def open(self, target: Target) -> TransferSession:
        """Look whether it can be written to. Raises `ConfigError`."""
        self.check()
        session = FolderSession(Path(self.path).resolve(), self.shard_mib << 20, target)
        try:
            session.new_folder("probe").rmdir()
        except OSError as error:
            raise ConfigError("FolderTransfer.path", wanted="a folder that can be written to",
                              got=f"{self.path}: {error.strerror or error}", remedy="Name another.") from error  # fmt: skip
        return session


class FolderSession(TransferSession):
    """See `FolderTransfer`."""

    def __init__(self, path: Path, shard_bytes: int, target: Target) -> None:
        self._path, self._shard_bytes, self._target = path, shard_bytes, target

    def new_folder(self, what: str) -> Path:
        """A folder that was not there before. Raises `OSError`."""
        folder = self._path / f"delta-lightning-{what}-{secrets.token_hex(8)}"
        folder.mkdir()
        return folder

    def send(self, version: int, label: str, weights: Iterable[tuple[str, Tensor]], clients: Sequence[Client]) -> Delivered:
        """See the seam. Raises `RunError` where the folder cannot be written."""
        counted, work = Counted(weights, self._target.dtype), Round(clients, self._target, version, label)
        folder = None
        try:
            folder = self.new_folder(f"weights-{version}")
            shards = [_write(folder, index, shard) for index, shard in enumerate(_shards(counted, self._shard_bytes))]
            (folder / INDEX).write_text(json.dumps({"version": version, "shards": shards}), encoding="utf-8")
            work.begin([{"path": str(folder)} for _ in clients])
            return work.finish(counted)
        except OSError as error:
            raise RunError(f"weights of version {version} cannot be written to {self._path}: {error}") from error
        finally:
            counted.exhaust()
            if folder is not None:
                shutil.rmtree(folder)

    def close(self) -> None:
        """Nothing is held between updates."""


def read_folder(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an update, in the order in which they were written. Raises `OSError` where it is not seen from here."""
    from safetensors import safe_open

    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    for shard in index["shards"]:
        with safe_open(folder / shard["file"], framework="pt") as file:
            for name in shard["names"]:
                yield name, file.get_tensor(name)


def _shards(weights: Iterable[tuple[str, Tensor]], most: int) -> Iterator[dict[str, Tensor]]:
    """The weights in order, cut where a shard has reached `most` bytes."""
    shard: dict[str, Tensor] = {}
    held = 0
    for name, value in weights:
        shard[name] = value.to("cpu", copy=True).contiguous()  # safetensors refuses tensors that share memory
        held += value.numel() * value.element_size()
        if held >= most:
            yield shard
            shard, held = {}, 0
    if shard:
        yield shard


def _write(folder: Path, index: int, shard: dict[str, Tensor]) -> dict[str, Any]:
    from safetensors.torch import save_file

    name = f"shard-{index:05d}.safetensors"
    save_file(shard, folder / name)
    return {"file": name, "names": list(shard)}
