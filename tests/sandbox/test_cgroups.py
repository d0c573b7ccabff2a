"""Control groups of both versions, on folders that look like them and, where there are any, on the kernel's."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from delta_lightning.sandbox import cgroups
from delta_lightning.sandbox.cgroups import LaneGroup, lane_groups


def _v1(root: Path) -> Path:
    for controller in ("memory", "pids"):
        (root / controller / "job").mkdir(parents=True)
    own = root / "own"
    own.write_text("4:memory:/job\n8:pids:/job\n9:name=systemd:/\n0::/\n")
    return own


def _v2(root: Path, *, delegated: bool) -> Path:
    place = root / "user.slice" / "run.scope"
    place.mkdir(parents=True)
    for folder in (root, root / "user.slice", place):
        (folder / "cgroup.controllers").write_text("cpu memory pids\n")
        (folder / "cgroup.subtree_control").write_text("memory pids\n" if delegated and folder == root / "user.slice" else "")
    own = root / "own"
    own.write_text("0::/user.slice/run.scope\n")
    return own


@pytest.fixture
def _files_appear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel fills a new group with files; here the making of one does."""
    make = Path.mkdir

    def mkdir(self: Path, *args: object, **kwargs: object) -> None:
        make(self, *args, **kwargs)  # type: ignore[arg-type]
        for name in ("cgroup.procs", "pids.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"):
            (self / name).touch()
        (self / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
        (self / "memory.events").write_text("low 0\noom 9\noom_kill 5\n")

    monkeypatch.setattr(Path, "mkdir", mkdir)


@pytest.mark.usefixtures("_files_appear")
def test_version_1_takes_a_folder_per_controller(tmp_path: Path) -> None:
    groups = lane_groups("slot-0", 2, tmp_path, _v1(tmp_path))
    assert [group.version for group in groups] == [1, 1]
    assert groups[1].folders == {name: tmp_path / name / "job" / "slot-0-1" for name in ("memory", "pids")}
    groups[0].limit(memory_mib=64, processes=7)
    assert (tmp_path / "memory/job/slot-0-0/memory.limit_in_bytes").read_text() == str(64 << 20)
    assert (tmp_path / "memory/job/slot-0-0/memory.memsw.limit_in_bytes").read_text() == str(64 << 20)
    assert (tmp_path / "pids/job/slot-0-0/pids.max").read_text() == "7"
    assert groups[0].kills() == 3


@pytest.mark.usefixtures("_files_appear")
def test_version_2_takes_the_nearest_group_that_hands_its_controllers_down(tmp_path: Path) -> None:
    groups = lane_groups("slot-0", 1, tmp_path, _v2(tmp_path, delegated=True))
    # In a tree of plain files the process's own folder can be made to hand them down too; a kernel refuses while it holds one.
    assert groups[0].version == 2
    folder = groups[0].folders["memory"]
    assert folder == groups[0].folders["pids"]
    assert folder.name == "slot-0-0"
    assert (folder.parent / "cgroup.subtree_control").read_text() in ("memory pids\n", "+memory +pids")
    groups[0].limit(memory_mib=32, processes=5)
    assert (folder / "memory.max").read_text() == str(32 << 20)
    assert (folder / "pids.max").read_text() == "5"
    assert groups[0].kills() == 5


def test_where_nothing_can_be_made_there_are_no_groups(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/\n")
    (group,) = lane_groups("slot-0", 1, tmp_path / "none", own)
    assert group.folders == {}
    group.limit(memory_mib=64, processes=7)
    assert group.doors() == []
    assert group.kills() == 0
    assert group.empty()


def test_a_real_group_limits_counts_and_sweeps() -> None:
    (group,) = lane_groups(f"delta-lightning-test-{os.getpid()}", 1)
    if set(group.folders) != {"memory", "pids"}:
        pytest.skip("no control groups that this process may make")
    doors = group.doors()
    try:
        group.limit(memory_mib=512, processes=6)
        group.limit(memory_mib=32, processes=6)
        group.limit(memory_mib=64, processes=6)  # down and up again: version 1 wants its two limits in order
        enter = "import os, sys\nfor d in sys.argv[1].split(): os.write(int(d), b'0')\n"
        arguments = " ".join(map(str, doors))
        hog = subprocess.run(
            ["python3", "-S", "-c", enter + "x = bytearray(256 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1", arguments],
            pass_fds=doors,
            check=False,
        )
        assert hog.returncode == -signal.SIGKILL
        assert group.kills() >= 1
        code = enter + "print(1, flush=True)\nimport time; time.sleep(99)"
        sleeper = subprocess.Popen(["python3", "-S", "-c", code, arguments], pass_fds=doors, stdout=subprocess.PIPE)
        with sleeper:
            assert sleeper.stdout is not None
            sleeper.stdout.readline()
            assert not group.empty()
            assert group.sweep(5.0)
        assert group.empty()
    finally:
        group.remove()
    assert not any(folder.exists() for folder in group.folders.values())


def test_root_is_where_linux_mounts_them() -> None:
    assert Path("/sys/fs/cgroup") == cgroups.ROOT
    assert LaneGroup(folders={}, version=1).empty()
