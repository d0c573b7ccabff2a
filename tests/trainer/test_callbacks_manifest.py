"""Sizes and checksums of checkpoints: every kind of damage is found, named, and told from what is merely old."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
import torch
import xxhash

from delta_lightning.trainer.callbacks.atomic import AtomicCheckpointIO
from delta_lightning.trainer.callbacks.manifest import (
    COMMENT,
    MANIFEST,
    SummingFile,
    damage,
    read_seal,
    read_sum,
    write_manifest,
)

STATE = {"global_step": 3, "weights": torch.arange(5000.0)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    AtomicCheckpointIO().save_checkpoint(STATE, tmp_path / "step-1.ckpt")
    return tmp_path / "step-1.ckpt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "step-1.ckpt"
    folder.mkdir()
    for name in ("__0_0.distcp", "__1_0.distcp", ".metadata", "meta.pt"):
        (folder / name).write_bytes(os.urandom(3000))
    write_manifest(folder, {"__0_0.distcp": read_sum(folder / "__0_0.distcp")})
    return folder


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_a_sealed_file_is_what_torch_wrote_and_still_reads(file: Path) -> None:
    plain = io.BytesIO()
    torch.save(STATE, plain)
    assert file.stat().st_size == len(plain.getvalue()) + COMMENT
    for mmap in (False, True):
        assert torch.equal(torch.load(file, weights_only=True, mmap=mmap)["weights"], STATE["weights"])  # type: ignore[arg-type]
    assert zipfile.ZipFile(file).testzip() is None, "it is a zip archive with a comment, for other readers too"
    assert damage(file) is None
    seal = read_seal(file)
    assert seal is not None
    assert seal.files[file.name].xxh3_128 == xxhash.xxh3_128(file.read_bytes()[: -COMMENT - 2]).hexdigest()


@pytest.mark.parametrize("sizes", [[1], [2], [3], [1, 1, 1, 1], [5, 1, 2, 7, 3]])
def test_the_sum_does_not_depend_on_how_it_was_written(sizes: list[int]) -> None:
    data, target = os.urandom(sum(sizes)), io.BytesIO()
    summing = SummingFile(target)
    for start, size in zip([sum(sizes[:i]) for i in range(len(sizes))], sizes, strict=True):
        summing.write(memoryview(data)[start : start + size])
    assert target.getvalue() == data
    assert summing._hash.hexdigest() == xxhash.xxh3_128(data[:-2]).hexdigest()


def test_a_flipped_bit_anywhere_in_a_file_is_found(file: Path) -> None:
    whole = file.read_bytes()
    in_sum = whole.rindex(b'"xxh3_128": "') + 20
    for at in (0, 100, len(whole) // 2, -COMMENT - 2, -COMMENT - 1, in_sum, -COMMENT - 22):
        flip(file, at)
        assert damage(file) is not None, at
        file.write_bytes(whole)
    flip(file, len(whole) // 2)
    assert str(damage(file)).startswith("step-1.ckpt has the checksum ")


def test_a_file_that_was_cut_off_is_found(file: Path) -> None:
    whole = file.read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) - COMMENT, len(whole) - 1):
        file.write_bytes(whole[:kept])
        assert f"the end of step-1.ckpt ({kept:,} bytes) is missing" in str(damage(file)), kept


@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp", ".metadata", "meta.pt"])
def test_every_file_of_a_folder_counts(folder: Path, name: str) -> None:
    assert damage(folder) is None
    whole = (folder / name).read_bytes()
    flip(folder / name, 1234)
    assert str(damage(folder)).startswith(f"{name} has the checksum ")
    (folder / name).write_bytes(whole[:-1])
    assert damage(folder) == f"{name} has 2,999 bytes instead of 3,000"
    (folder / name).unlink()
    assert damage(folder) == f"{name} is missing"


def test_a_manifest_that_cannot_be_read_is_damage_and_none_is_not(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")
    assert damage(folder) == "manifest.json cannot be read"
    (folder / MANIFEST).unlink()
    assert damage(folder) is None and read_seal(folder) is None


def test_a_file_from_before_there_were_sums_is_no_damage(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.ckpt")
    assert damage(tmp_path / "old.ckpt") is None and read_seal(tmp_path / "old.ckpt") is None
    assert damage(tmp_path / "nothing.ckpt") == "there is no such file"


def test_it_says_how_far_it_is(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    damage(folder, lambda done, total: seen.append((done, total)))
    assert seen == [(3000, 12000), (6000, 12000), (9000, 12000), (12000, 12000)]


def test_the_later_one_says_so(tmp_path: Path) -> None:
    for name in ("a", "b"):
        AtomicCheckpointIO().save_checkpoint(STATE, tmp_path / name)
    first, second = read_seal(tmp_path / "a"), read_seal(tmp_path / "b")
    assert first is not None and second is not None and first.time_ns < second.time_ns
