"""A model in safetensors files: checked by their headers, and read so that each rank gets its rows and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from delta_lightning.errors import ConfigError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Shapes = Mapping[str, tuple[int, ...]]
DROPPED = re.compile(r"rotary_emb\.inv_freq$")  # of old files; the model computes them


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """What a rank needs to build a model from its files: small, without a tensor.

    Attributes:
        config: the `transformers` config, with the attention kernel chosen.
        dtype: of the parameters, whatever it is in the files.
        generation: the folder's generation config, if it has one.
        files: where each tensor lies, by the model's names; a tied head may be among them.
        accept: refuses the finished model if the trainer cannot work with it. Raises `ConfigError`. Collective under sharding.
        untied: what to raise when the files hold a head that is not the embedding, though the config ties them.
        tick: shows progress as (tensors read, of how many).
    """

    config: Any
    dtype: torch.dtype
    generation: Any
    files: Mapping[str, Path]
    accept: Callable[[Any], None]
    untied: Callable[[], Exception]
    tick: Callable[[int, int], None]

    def rows(self, wanted: Mapping[str, slice]) -> Iterator[tuple[str, Tensor]]:
        """The wanted rows of each tensor, one at a time, in main memory and in the dtype of its file. No other row is read."""
        from safetensors import safe_open

        for done, name in enumerate(sorted(wanted, key=lambda name: (self.files[name], name))):
            self.tick(done, len(wanted))
            # Closed again at once: what was read stays in memory while the file is mapped.
            with safe_open(self.files[name], framework="pt", device="cpu") as opened:
                rows = opened.get_slice(name)[wanted[name]]
            yield name, rows
        self.tick(len(wanted), len(wanted))


def tensor_files(folder: Path) -> dict[str, Path] | None:
    """The file of each tensor of a model folder by name; None if its files have names of their own."""
    if (folder / WEIGHTS).is_file():
        return dict.fromkeys(_header(folder / WEIGHTS)[1], folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return {name: folder / file for name, file in json.loads((folder / INDEX).read_bytes())["weight_map"].items()}
    return None


def refuse_other_shapes(files: Mapping[str, Path], shapes: Shapes, what: str) -> None:
    """Refuses files whose tensors have other shapes than the model's. Only their headers are read. Raises `ConfigError`."""
    headers = {file: _header(file)[1] for file in set(files.values())}
    for name, file in files.items():
        entry = headers[file].get(name)
        got = None if entry is None else tuple(entry["shape"])
        if name in shapes and got != shapes[name]:
            raise ConfigError(
                what, wanted=f"{name} of shape {list(shapes[name])}, as its config.json says",
                got="no such tensor in its file" if got is None else str(list(got)),
                remedy="Fetch config and weights again: they do not belong together.",
            )  # fmt: skip


def differing_names(files: Mapping[str, Path], shapes: Shapes, *, tied: bool) -> tuple[list[str], list[str]]:
    """Names that the model has and the files lack, and names that they have beyond it; a tied head may be there or not."""
    spare = {"lm_head.weight"} if tied else set()
    missing = sorted(name for name in shapes if name not in files)
    beyond = sorted(name for name in files if name not in shapes and name not in spare and not DROPPED.search(name))
    return missing, beyond


def refuse_damaged(folder: Path) -> None:
    """Refuses a model folder without weights, or with some missing or cut short; reads headers only. Raises `ConfigError`."""
    for file in _listed(folder):
        size = file.stat().st_size
        try:
            start, entries = _header(file)
            wanted = start + max(entry["data_offsets"][1] for entry in entries.values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            got, remedy = f"{size} bytes without one", "Fetch the file again."
            raise ConfigError(f"weights {file}", wanted="a safetensors header", got=got, remedy=remedy) from error
        if wanted != size:
            got = f"{size} bytes; it was cut short or altered"
            raise ConfigError(f"weights {file}", wanted=f"{wanted} bytes", got=got, remedy="Fetch the file again.")


def _listed(folder: Path) -> list[Path]:
    """The safetensors files of a model folder. Raises `ConfigError` if there are none, or some are missing."""
    index = folder / INDEX
    if not index.is_file():
        files = sorted(folder.glob("*.safetensors"))
        if files:
            return files
        raise ConfigError(
            f"model folder {folder}", wanted="weights (*.safetensors)", got=contents(folder),
            remedy="Fetch the weights, or convert them with model.save_pretrained.",
        )  # fmt: skip
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ConfigError(str(index), wanted="a safetensors index", got=got, remedy="Fetch it again.") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        got = f"{len(missing)} of {len(names)} missing, first {missing[0]}"
        raise ConfigError(f"model folder {folder}", wanted=f"the weights in {INDEX}", got=got, remedy="Fetch them.")
    return [folder / name for name in names]


def contents(folder: Path) -> str:
    """What is in a folder, for messages."""
    names = sorted(file.name for file in folder.iterdir())
    return f"a folder with {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "an empty folder"


def _header(file: Path) -> tuple[int, dict[str, Any]]:
    """Bytes before the data; name -> dtype, shape and place of each tensor. Raises `ValueError` where there is no header."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        entries = json.loads(stream.read(min(length, file.stat().st_size)))
    return 8 + length, {name: entry for name, entry in entries.items() if name != "__metadata__"}
