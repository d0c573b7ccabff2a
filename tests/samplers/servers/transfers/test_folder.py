"""Weights through a folder, to doubles of servers that read them with the plug-in's own code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.samplers.servers.transfers import FolderTransfer, Target
from support.weight_server import WeightServer, weight_server

TARGET = Target(dtype=torch.float32, tied=None, silence=60.0, shapes={})


@pytest.fixture
def server() -> Iterator[WeightServer]:
    with weight_server() as one:
        yield one


def weights() -> dict[str, Tensor]:
    whole = torch.randn(900, 1000, generator=torch.Generator().manual_seed(1))
    return {
        "z.10": whole[:300],
        "a.9": whole[300:600].t(),
        "m": whole[600:].double(),
        "none": torch.zeros(0),
        "one": whole[0, 0],
    }


@pytest.mark.parametrize("shard_mib", [1, 64])
def test_servers_load_what_was_written_and_nothing_is_left(tmp_path: Path, server: WeightServer, shard_mib: int) -> None:
    (tmp_path / "model.safetensors").write_text("the user's")
    session = FolderTransfer(path=str(tmp_path), shard_mib=shard_mib).open(TARGET)
    given = weights()
    with weight_server(workers=2) as other:
        for version in (1, 2):
            delivered = session.send(version, f"run/{version}", given.items(), [server.client, other.client])
            assert delivered.failures == (None, None) and delivered.names == tuple(given)
            assert delivered.num_bytes == sum(value.numel() * value.element_size() for value in given.values())
            for loaded in (*server.loaded, *other.loaded):
                assert list(loaded) == list(given), "in the order in which they were sent: layers are loaded one by one"
                assert all(torch.equal(loaded[name], value.float()) for name, value in given.items())
            assert server.label == other.label == f"run/{version}"
    session.close()
    session.close()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_text() == "the user's"


def test_a_shard_is_closed_at_its_size(tmp_path: Path, server: WeightServer) -> None:
    seen: list[list[str]] = []
    tamper = server.tamper

    def look(stream: object) -> object:
        [folder] = tmp_path.iterdir()
        seen.append(sorted(path.name for path in folder.iterdir()))
        return tamper(stream)  # type: ignore[arg-type]

    server.tamper = look  # type: ignore[assignment, method-assign]
    FolderTransfer(path=str(tmp_path), shard_mib=1).open(TARGET).send(1, "a", weights().items(), [server.client])
    shards = [f"shard-{index:05d}.safetensors" for index in range(4)]
    assert seen == [["delta_lightning_update.json", *shards]]


def test_a_server_that_fails_is_named_and_the_files_go_away(tmp_path: Path, server: WeightServer) -> None:
    server.refuse["/update_weights"] = "no memory left"
    with weight_server() as good:
        session = FolderTransfer(path=str(tmp_path)).open(TARGET)
        first, second = session.send(1, "a", weights().items(), [server.client, good.client]).failures
    assert first is not None and "no memory left" in first.reason and second is None
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_hangs_is_cut_off_and_the_others_go_on(tmp_path: Path, server: WeightServer) -> None:
    server.stall_after = 2
    with weight_server() as good:
        target = Target(dtype=torch.float32, tied=None, silence=3.0, shapes={})
        session = FolderTransfer(path=str(tmp_path)).open(target)
        first, second = session.send(1, "a", weights().items(), [server.client, good.client]).failures
        assert first is not None and first.reason == "it did not load the weights in 3 s" and second is None
        assert (server.label, good.label) == ("default", "a") and list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_an_error_and_the_weights_are_read_to_their_end(
    tmp_path: Path, server: WeightServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = FolderTransfer(path=str(tmp_path), shard_mib=1).open(TARGET)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("delta_lightning.samplers.servers.transfers.folder._write", full)
    given = iter(weights().items())
    with pytest.raises(RunError, match=r"version 3 cannot be written to .*No space left"):
        session.send(3, "a", given, [server.client])
    assert next(given, None) is None and list(tmp_path.iterdir()) == []
    assert "/update_weights" not in server.asked


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"FolderTransfer\.path: wanted an existing folder"):
            FolderTransfer(path=str(path)).check()
    with pytest.raises(ConfigError, match="shard_mib"):
        FolderTransfer(path="x", shard_mib=0)
    assert FolderTransfer(path="x").backend() == "delta_lightning_folder"
