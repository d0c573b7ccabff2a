"""Sizes and checksums of a checkpoint, written with it and held against it before anything reads it.

A checkpoint that is one file carries them in the comment at the end of its zip archive, so that one rename makes both appear.
One that is a folder carries them in `manifest.json`. The checksum is XXH3 with 128 bits: it finds damage, at the speed of the
disk; it does not find forgery.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import xxhash

MANIFEST, META = "manifest.json", "meta.pt"  # the second is Lightning's, in every checkpoint that is a folder
COMMENT = 192  # bytes of the comment in a file: always as many, so that it is found from the end
CHUNK = 1 << 24
_END = b"PK\x05\x06"  # begins the last record of a zip archive, 22 bytes, the last two of which are the comment's length
_RECORD = 22

Tick = Callable[[int, int], None]  # (bytes read, bytes in all)


@dataclass(frozen=True, kw_only=True)
class Sum:
    """Size in bytes and checksum of a file."""

    bytes: int
    xxh3_128: str


class SummingFile:
    """A file opened for writing that keeps the size and the checksum of what has gone through it, all but the last two bytes.

    Those are the length of the comment, which `seal` puts in their place.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self._size, self._tail = file, xxhash.xxh3_128(), 0, b""

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        kept = self._tail + bytes(view[-2:])
        if len(view) > 2:
            self._hash.update(self._tail)
            self._hash.update(view[:-2])
        else:
            self._hash.update(kept[:-2])
        self._size, self._tail = self._size + len(view), kept[-2:]
        return len(view)

    def flush(self) -> None:
        """Hand everything to the file."""
        self._file.flush()

    def seal(self) -> None:
        """Turn the comment of the zip archive that was written into its checksum and the time."""
        text = json.dumps({"time_ns": time.time_ns(), "bytes": self._size - 2, "xxh3_128": self._hash.hexdigest()})
        self._file.seek(-2, 1)
        self._file.write(struct.pack("<H", COMMENT) + text.encode().ljust(COMMENT))


def write_manifest(folder: Path, sums: Mapping[str, Sum]) -> None:
    """`manifest.json` of a folder whose files have these sums by name; those without are read."""
    files = {name: vars(sums.get(name) or read_sum(folder / name)) for name in _names(folder)}
    text = json.dumps({"time_ns": time.time_ns(), "files": files}, indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_sums(files: Iterable[Path]) -> dict[str, Sum]:
    """Of each file, by its name."""
    return {file.name: read_sum(file) for file in files}


def read_sum(file: Path, tick: Tick = lambda done, total: None, *, size: int | None = None) -> Sum:
    """Of a file, or of its first `size` bytes."""
    digest, done, total = xxhash.xxh3_128(), 0, file.stat().st_size if size is None else size
    with file.open("rb") as opened:
        while chunk := opened.read(min(CHUNK, total - done)):
            digest.update(chunk)
            done += len(chunk)
            tick(done, total)
    return Sum(bytes=done, xxh3_128=digest.hexdigest())


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What a checkpoint says of itself: when it was made (ns since 1970), and what its files must be, by name."""

    time_ns: int
    files: Mapping[str, Sum]


def read_seal(checkpoint: Path) -> Seal | None:
    """Of a checkpoint, a file or a folder. None if it carries none: it is older than this, or damaged."""
    try:
        text = (checkpoint / MANIFEST).read_bytes() if checkpoint.is_dir() else _comment(checkpoint)
        found = json.loads(text)
        files = found["files"] if checkpoint.is_dir() else {checkpoint.name: found}
        sums = {name: Sum(bytes=int(one["bytes"]), xxh3_128=str(one["xxh3_128"])) for name, one in files.items()}
        return Seal(time_ns=int(found["time_ns"]), files=sums)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def damage(checkpoint: Path, tick: Tick = lambda done, total: None) -> str | None:
    """The first thing that is wrong with a sealed checkpoint, with its file and both values; None if it is whole.

    Args:
        checkpoint: a file or a folder. tick: bytes read so far and in all.
    """
    try:
        return _damage(checkpoint, tick)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} was removed while it was read"


def _damage(checkpoint: Path, tick: Tick) -> str | None:
    seal = read_seal(checkpoint)
    if seal is None:
        return unsealed(checkpoint)
    folder, total, before = checkpoint if checkpoint.is_dir() else checkpoint.parent, _total(seal), 0
    for name, want in seal.files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        size = file.stat().st_size - (0 if checkpoint.is_dir() else COMMENT + 2)
        if size != want.bytes:
            return f"{name} has {size:,} bytes instead of {want.bytes:,}"
    for name, want in seal.files.items():
        got = read_sum(folder / name, lambda done, _, start=before: tick(start + done, total), size=want.bytes)  # type: ignore[misc]
        if got != want:
            return f"{name} has the checksum {got.xxh3_128} instead of {want.xxh3_128}"
        before += want.bytes
    return None


def unsealed(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint without a seal; None if it can be one that was made before there were seals."""
    if checkpoint.is_dir():
        if (checkpoint / MANIFEST).exists():
            return f"{MANIFEST} cannot be read"
        return None if (checkpoint / META).is_file() else f"{META} is missing"
    if not checkpoint.is_file():
        return "there is no such file"
    with checkpoint.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _RECORD))
        end = file.read()
    whole = end[:4] == _END and end[-2:] == b"\0\0"
    return None if whole else f"the end of {checkpoint.name} ({size:,} bytes) is missing or damaged"


def _comment(file: Path) -> bytes:
    with file.open("rb") as opened:
        opened.seek(-_RECORD - COMMENT, 2)
        end = opened.read()
    if end[:4] != _END or end[_RECORD - 2 : _RECORD] != struct.pack("<H", COMMENT):
        raise ValueError("no comment of ours")
    return end[_RECORD:]


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.is_file() and file.name != MANIFEST)


def _total(seal: Seal) -> int:
    return sum(one.bytes for one in seal.files.values())
