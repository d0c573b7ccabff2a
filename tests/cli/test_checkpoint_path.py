"""Which checkpoint `--ckpt_path` means, and which ones are refused."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from delta_lightning.cli.app import DeltaCLI
from delta_lightning.cli.checkpoint_path import VARIABLE, agreed, newest_whole, resolve, told
from delta_lightning.errors import ConfigError
from delta_lightning.trainer.callbacks import manifest
from delta_lightning.trainer.callbacks.atomic import AtomicCheckpointIO


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints; the last that was made is not the one that is furthest."""
    folder = tmp_path / "checkpoints"
    for name in ("step-1.ckpt", "step-5.ckpt", "step-2-update-1.ckpt"):
        AtomicCheckpointIO().save_checkpoint({"global_step": 1, "values": torch.arange(100)}, folder / name)
    (folder / ".step-9.ckpt.partial").write_text("half")
    return folder


class Asked:
    """`resolve` with what it says and leaves in the environment."""

    def __init__(self, **environment: str) -> None:
        self.environment, self.said = dict(environment), list[str]()

    def __call__(self, asked: str | None, folder: Path, *, rank: int = 0, template: str = "runs/a") -> str | None:
        return resolve(asked, template=template, folder=folder, environment=self.environment, rank=rank, say=self.said.append)


def spoil(checkpoint: Path) -> None:
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    checkpoint.write_bytes(bytes(data))


def test_the_last_is_the_one_that_was_made_last(folder: Path) -> None:
    ask = Asked()
    for word in ("last", "last-if-any"):
        assert ask(word, folder) == str(folder / "step-2-update-1.ckpt")
    assert ask.said == [f"going on from {folder / 'step-2-update-1.ckpt'}"] * 2
    assert ask.environment == {VARIABLE: str(folder / "step-2-update-1.ckpt")}


def test_those_that_are_removed_meanwhile_are_left_out_and_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a run that goes on: one since the folder was listed, one before it is read."""
    listed, newest, said = sorted(folder.glob("[!.]*.ckpt")), folder / "step-2-update-1.ckpt", list[str]()
    read = manifest.read_sum

    def removing(file: Path, *args: Any, **options: Any) -> Any:
        newest.unlink(missing_ok=True)
        return read(file, *args, **options)

    monkeypatch.setattr(manifest, "read_sum", removing)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [*listed, folder / "step-9.ckpt"])
    assert newest_whole(folder, say=said.append) == folder / "step-5.ckpt"
    assert said == [f"{newest} is damaged and left out: step-2-update-1.ckpt was removed while it was read"]


def test_the_answer_of_an_earlier_run_of_the_process_is_not_handed_on() -> None:
    ask = Asked(**{VARIABLE: "of the run before"})
    assert ask(None, Path("any")) is None and ask.environment == {}


def test_damaged_ones_are_left_out_and_named(folder: Path) -> None:
    spoil(folder / "step-2-update-1.ckpt")
    ask = Asked()
    assert ask("last", folder) == str(folder / "step-5.ckpt")
    assert "step-2-update-1.ckpt is damaged and left out: step-2-update-1.ckpt has the checksum" in ask.said[0]


def test_without_any_it_begins_anew_only_if_told_so(tmp_path: Path) -> None:
    ask = Asked()
    assert ask("last-if-any", tmp_path / "none") is None and ask.environment == {VARIABLE: ""}
    with pytest.raises(ConfigError, match=r"--ckpt_path=last: wanted a whole checkpoint in .*, got none"):
        ask("last", tmp_path / "none")


def test_it_never_begins_anew_beside_damaged_ones(folder: Path) -> None:
    for checkpoint in folder.glob("step-*"):
        spoil(checkpoint)
    with pytest.raises(ConfigError, match=r"got only damaged ones: step-1.ckpt, step-2-update-1.ckpt, step-5.ckpt"):
        Asked()("last-if-any", folder)


def test_a_folder_without_its_head_is_no_checkpoint(folder: Path) -> None:
    (folder / "step-7.ckpt").mkdir()
    ask = Asked()
    assert ask("last", folder) == str(folder / "step-2-update-1.ckpt")
    assert ask.said[0].endswith("step-7.ckpt is damaged and left out: meta.pt is missing")


def test_where_it_begins_anew_is_said_and_what_a_moved_run_needs(tmp_path: Path) -> None:
    ask = Asked()
    assert ask("last-if-any", tmp_path) is None and ask.said == [f"no checkpoint in {tmp_path}: a new run begins"]
    with pytest.raises(ConfigError, match="moved, give --run_dir=FOLDER too"):
        ask("last", tmp_path)


def test_a_folder_by_the_clock_has_no_last_one(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"wanted the folder of one run, --run_dir=FOLDER, got 'runs/\{now\}'"):
        Asked()("last", folder, template="runs/{now}")


def test_nodes_that_start_their_own_ranks_would_each_look_for_themselves(folder: Path) -> None:
    def ask(asked: str, **environment: str) -> str | None:
        return resolve(asked, template="runs/a", folder=folder, environment=environment, rank=0, nodes=2, say=print)

    with pytest.raises(ConfigError, match=r"--ckpt_path=last: wanted a launcher .*, got '2 nodes and none'.*torchrun"):
        ask("last", NODE_RANK="1")
    assert ask("last", RANK="0") == ask(str(folder / "step-2-update-1.ckpt"), NODE_RANK="1")


def test_a_path_must_be_whole(folder: Path) -> None:
    ask, path = Asked(), folder / "step-5.ckpt"
    assert ask(str(path), folder) == str(path) and ask.said == []
    spoil(path)
    with pytest.raises(
        ConfigError, match=r"got a damaged one: step-5.ckpt has the checksum .* instead of .*whole one there: .*2-upd"
    ):
        ask(str(path), folder)
    os.truncate(path, 100)
    with pytest.raises(ConfigError, match=r"the end of step-5.ckpt \(100 bytes\) is missing"):
        ask(str(path), folder)
    for other in folder.glob("step-[12]*"):
        other.unlink()
    with pytest.raises(ConfigError, match="no whole one beside it"):
        ask(str(path), folder)


def test_one_of_an_earlier_version_is_read_and_said_to_have_no_checksum(tmp_path: Path) -> None:
    torch.save({"global_step": 1}, tmp_path / "step-1.ckpt")
    ask = Asked()
    assert ask(str(tmp_path / "step-1.ckpt"), tmp_path) is not None
    assert ask.said == [f"{tmp_path / 'step-1.ckpt'} has no checksum, it was made by an earlier version: read as it is"]


def test_ranks_that_lightning_starts_are_told(folder: Path) -> None:
    assert Asked(LOCAL_RANK="1", **{VARIABLE: "there"})("last", folder, rank=1) == "there"
    assert Asked(LOCAL_RANK="1", **{VARIABLE: ""})("last-if-any", folder, rank=1) is None


def test_ranks_launched_by_others_do_not_look(folder: Path) -> None:
    ask = Asked(LOCAL_RANK="1", RANK="1")
    assert ask("last", folder, rank=1) == "last" and ask.environment.keys() == {"LOCAL_RANK", "RANK"}


def strategy(external: bool) -> Any:
    return SimpleNamespace(
        cluster_environment=SimpleNamespace(creates_processes_externally=external), connect=lambda module: None,
        setup_environment=lambda: None, broadcast=lambda path: "rank 0's",
    )  # fmt: skip


def test_they_get_rank_0s_answer() -> None:
    for size, external, want in ((1, True, "own"), (2, False, "own"), (2, True, "rank 0's")):
        trainer: Any = SimpleNamespace(world_size=size, strategy=strategy(external))
        assert agreed(trainer, None, "own") == want  # type: ignore[arg-type]


def test_a_rank_that_lightning_started_asks_no_more() -> None:
    """The one that started it does not take part in asking: it would wait for ever."""
    started = {"LOCAL_RANK": "1", VARIABLE: ""}
    assert told(started) and not told({VARIABLE: ""}) and not told({"LOCAL_RANK": "1"})
    for asked, has_answer, want in (("last", True, "own"), ("last", False, "rank 0's"), ("step-1.ckpt", False, "own")):
        cli: Any = SimpleNamespace(asked=asked, told=has_answer, trainer=SimpleNamespace(world_size=2, strategy=strategy(True)))
        assert DeltaCLI._checkpoint_of_all(cli, None, "own") == want  # type: ignore[arg-type]


def test_nothing_is_no_checkpoint(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) is None and newest_whole(tmp_path / "no") is None
    assert Asked()(None, tmp_path) is None
