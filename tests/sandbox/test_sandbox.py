"""Opening, starting, ending and giving up; what a cell gets and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.sandbox import Cell, Ending, Limits, Sandbox, slots
from delta_lightning.sandbox import sandbox as module
from support import hostile, rungs

DRIVER = Path(__file__).parents[1] / "support" / "jobs_driver.py"
LIMITS = Limits(memory_mib=128, cpu_seconds=5, processes=16, disk_mib=4, open_files=64)
RUNGS = rungs.ISOLATING


@contextmanager
def opened(rung: str = "auto", **more: object) -> Iterator[Sandbox]:
    rungs.need(rung)
    sandbox = Sandbox.open(drivers=[DRIVER], rung=rung, allow_unsafe=rung == "unsafe", **more)  # type: ignore[arg-type]
    try:
        yield sandbox
    finally:
        sandbox.close()


def begin(
    sandbox: Sandbox, job: str, argument: bytes = b"", lane: int = 0, limits: Limits = LIMITS
) -> tuple[Cell, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    with theirs:
        cell = sandbox.start(f"jobs_driver:{job}", channels=[theirs], limits=limits, lane=lane, argument=argument)
    return cell, ours


def said(sandbox: Sandbox, job: str, argument: bytes = b"", limits: Limits = LIMITS) -> bytes:
    cell, channel = begin(sandbox, job, argument, limits=limits)
    with channel, cell:
        text = b""
        while part := channel.recv(65536):
            text += part
        return text


@pytest.mark.parametrize("rung", [*RUNGS, "unsafe"])
def test_a_job_gets_its_channels_and_argument_and_ends(rung: str) -> None:
    with opened(rung) as sandbox:
        assert sandbox.rung.name == rung
        pairs = [socket.socketpair() for _ in range(3)]
        cell = sandbox.start("jobs_driver:echo", channels=[pair[1] for pair in pairs], limits=LIMITS, argument=b" hello")
        assert cell.wait(5) == Ending(exit_code=0, signal=None, out_of_memory=False)
        assert [pair[0].recv(100) for pair in pairs] == [b"0 hello", b"1 hello", b"2 hello"]
        assert cell.kill() == cell.wait(0)  # a known ending does not change
        assert said(sandbox, "length", bytes(3 << 20)) == str(3 << 20).encode()
        for end in sum(pairs, ()):
            end.close()


@pytest.mark.parametrize("rung", RUNGS)
def test_a_cell_has_nothing_but_what_it_was_given(rung: str) -> None:
    os.environ["SANDBOX_TEST_SECRET"] = "s3cret"
    try:
        with opened(rung) as sandbox:
            found = json.loads(said(sandbox, "identity"))
    finally:
        del os.environ["SANDBOX_TEST_SECRET"]
    assert "s3cret" not in json.dumps(found)
    assert found["descriptors"] == [0, 1, 2, 3]
    if rung != "landlock":
        assert found["process"] == 1  # first of its own pid namespace
        assert found["status"] == {
            "CapEff": "0" * 16, "CapBnd": "0" * 16, "CapPrm": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2",
        }  # fmt: skip
    if rung in ("bwrap-root", "unshare") and os.geteuid() == 0:
        assert all(slots.FIRST_UID <= uid < slots.FIRST_UID + 2 * slots.SLOTS for uid in found["uid"])


def test_the_lanes_have_uids_of_their_own() -> None:
    with opened("bwrap-root") as sandbox:
        uids = []
        for lane in (0, 1):
            cell, channel = begin(sandbox, "identity", lane=lane)
            with channel, cell:
                uids.append(json.loads(channel.recv(65536))["uid"][0])
        assert uids[1] == uids[0] + 1


@pytest.mark.parametrize("rung", RUNGS)
def test_two_lanes_run_at_once_and_a_busy_lane_refuses(rung: str) -> None:
    with opened(rung) as sandbox:
        first, one = begin(sandbox, "sleep")
        second, two = begin(sandbox, "sleep", lane=1)
        with one, two:
            assert one.recv(1) == two.recv(1) == b"!"
            with pytest.raises(RunError, match="Lane 0"):
                begin(sandbox, "nothing")
            assert first.kill() == Ending(exit_code=None, signal=9, out_of_memory=False)
            assert second.wait(0.05) is None  # the other lane does not notice
            assert said(sandbox, "echo", b"again") == b"0again"
            assert second.kill().signal == 9


@pytest.mark.parametrize(
    ("job", "argument", "ending"),
    [
        ("leave_code", b"7", Ending(exit_code=7, signal=None, out_of_memory=False)),
        ("fail", b"", Ending(exit_code=1, signal=None, out_of_memory=False)),
        ("crash", b"", Ending(exit_code=None, signal=signal.SIGSEGV, out_of_memory=False)),
    ],
)
def test_endings_are_told_apart(job: str, argument: bytes, ending: Ending) -> None:
    with opened() as sandbox:
        cell, channel = begin(sandbox, job, argument)
        with channel:
            assert cell.wait(5) == ending


@pytest.mark.parametrize("rung", ["bwrap-root", "bwrap-user", "unshare", "unsafe"])
def test_nothing_outlives_a_cell(rung: str) -> None:
    with opened(rung) as sandbox:
        cell, channel = begin(sandbox, "detach")
        with channel:
            assert cell.wait(5) is not None
            assert hostile.descendants(sandbox.zygote) == ()
            assert channel.recv(10) == b"!"
            assert channel.recv(10) == b""  # nobody holds the other end
        cell, channel = begin(sandbox, "sleep", b"children")
        with channel:
            assert channel.recv(10) != b""
            began = time.monotonic()
            assert cell.kill().signal == 9
            assert time.monotonic() - began < 1
            assert hostile.descendants(sandbox.zygote) == ()


def test_processor_time_is_limited() -> None:
    with opened() as sandbox:
        cell, channel = begin(sandbox, "spin", limits=Limits(cpu_seconds=1))
        with channel:
            assert cell.wait(20) == Ending(exit_code=None, signal=9, out_of_memory=False)


@pytest.mark.parametrize("rung", ["bwrap-root", "bwrap-user", "unshare"])
def test_memory_of_all_processes_together_is_limited_and_told(rung: str) -> None:
    with opened(rung) as sandbox:
        if not sandbox.rung.memory_group:
            pytest.skip("no memory control group here: see the test of the watch")
        assert sandbox._outpost is not None
        group = sandbox._outpost.groups[0]
        before, until = group.kills(), time.monotonic() + 20
        cell, channel = begin(sandbox, "fill", b"[4, 64]")
        with channel:
            while group.kills() == before and time.monotonic() < until:
                time.sleep(0.01)
            assert cell.kill().out_of_memory
        cell, channel = begin(sandbox, "fill", b"[2, 16]")
        with channel:
            assert channel.recv(1) == channel.recv(1) == b"!"
            assert not cell.kill().out_of_memory


def test_without_a_control_group_the_zygote_watches_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lane_groups", lambda name, lanes: _no_groups(lanes))
    with opened() as sandbox:
        if sandbox.rung.name == "landlock":
            pytest.skip("one process: nothing to add up")
        assert not sandbox.rung.memory_group
        assert any("no memory control group" in line for line in sandbox.rung.missing)
        cell, channel = begin(sandbox, "fill", b"[6, 40]")
        with channel:
            assert cell.wait(20) == Ending(exit_code=None, signal=9, out_of_memory=True)
        cell, channel = begin(sandbox, "fill", b"[2, 16]")
        with channel:
            assert cell.wait(0.3) is None
            assert not cell.kill().out_of_memory


def _no_groups(lanes: int) -> list[module.LaneGroup]:
    return [module.LaneGroup(folders={}, version=2) for _ in range(lanes)]


@pytest.mark.parametrize("rung", RUNGS)
def test_disk_is_small_private_and_gone(rung: str) -> None:
    with opened(rung) as sandbox:
        found = json.loads(said(sandbox, "write_files"))
        assert found["/usr"] == found["/"] == 0
        if rung == "landlock":
            assert set(found.values()) == {0}
            assert any("write files" in line for line in sandbox.rung.missing)
            return
        assert 0 < found["/tmp"] <= LIMITS.disk_mib
        assert 0 < found["/dev/shm"] <= LIMITS.disk_mib
        for _ in range(2):  # neither in memory nor on disk does anything come from the job before
            assert json.loads(said(sandbox, "remember")) == []


@pytest.mark.parametrize("rung", ["bwrap-root", "unshare"])
def test_threads_count_as_processes(rung: str) -> None:
    with opened(rung) as sandbox:
        if os.geteuid() != 0:
            pytest.skip("exact where each lane has a uid of its own")
        assert 0 < int(said(sandbox, "count_threads")) < LIMITS.processes


@pytest.mark.parametrize("rung", RUNGS)
def test_folders_are_shown_and_on_the_path_even_below_tmp(rung: str, tmp_path: Path) -> None:
    (tmp_path / "shown_to_the_sandbox.py").write_text("TEXT = 'from a folder'\n")
    tmp_path.chmod(0o755)
    with opened(rung, folders=[tmp_path]) as sandbox:
        assert said(sandbox, "import_from_folder") == b"from a folder"


def test_what_cannot_be_opened_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sandbox drivers"):
        Sandbox.open(drivers=[tmp_path / "none.py"])
    with pytest.raises(ConfigError, match="sandbox folders"):
        Sandbox.open(drivers=[DRIVER], folders=[tmp_path / "none"])
    with pytest.raises(ConfigError, match="allow_unsafe"):
        Sandbox.open(drivers=[DRIVER], rung="unsafe")
    (tmp_path / "broken.py").write_text("1 +\n")
    with pytest.raises(ConfigError, match="SyntaxError"):
        Sandbox.open(drivers=[tmp_path / "broken.py"], rung=rungs_best())


def rungs_best() -> str:
    return next((rung for rung in RUNGS if rungs.obstacle(rung) is None), "landlock")


def test_wrong_entries_and_lanes_are_refused() -> None:
    with opened() as sandbox:
        for entry, lane in (("none:echo", 0), ("jobs_driver", 0), ("jobs_driver:echo", 2)):
            with pytest.raises(ConfigError):
                sandbox.start(entry, channels=[], limits=LIMITS, lane=lane)
        cell = sandbox.start("jobs_driver:not_there", channels=[], limits=LIMITS)
        with pytest.raises(RunError, match="not_there"):
            cell.wait(5)
        with pytest.raises(RunError, match="not_there"):
            cell.kill()
        assert said(sandbox, "echo", b"!") == b"0!"


def test_no_rung_at_all_says_why_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in module.wanted("auto", allow_unsafe=False):
        monkeypatch.setattr(kind, "obstacle", lambda self: "not today")
    with pytest.raises(ConfigError) as caught:
        Sandbox.open(drivers=[DRIVER])
    for rung in RUNGS:
        assert f"{rung}: not today" in str(caught.value)
    assert "bubblewrap" in str(caught.value)


def test_auto_falls_to_the_next_rung_and_keeps_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    rungs.need("landlock")
    for kind in module.wanted("auto", allow_unsafe=False)[:-1]:
        monkeypatch.setattr(kind, "obstacle", lambda self: "not today")
    with opened() as sandbox:
        assert sandbox.rung.name == "landlock"
        assert [reason.split(":")[0] for reason in sandbox.refused] == list(RUNGS[:-1])


def test_a_rung_that_cannot_make_a_cell_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that maps no such uids, or where mounts are forbidden although namespaces are not."""
    rungs.need("landlock")
    rungs.need("bwrap-root")
    monkeypatch.setattr(slots, "FIRST_UID", 2**33)  # no uids
    with opened() as sandbox:
        assert sandbox.rung.name == "bwrap-user"
        assert sandbox.refused[0].startswith("bwrap-root: The sandbox could not start a job: ")


def test_a_dead_zygote_is_our_failure_and_is_replaced() -> None:
    with opened() as sandbox:
        cell, channel = begin(sandbox, "sleep")
        with channel:
            assert channel.recv(1) == b"!"
            zygote = sandbox.zygote
            os.kill(zygote, signal.SIGKILL)
            with pytest.raises(RunError, match="zygote died"):
                cell.wait(5)
        assert said(sandbox, "echo", b"!") == b"0!"
        assert sandbox.zygote != zygote


def test_a_slot_that_does_not_empty_is_left_to_die_and_replaced() -> None:
    with opened() as sandbox:
        cell, channel = begin(sandbox, "sleep")
        neighbour, other = begin(sandbox, "sleep", lane=1)
        with channel, other:
            assert channel.recv(1) == other.recv(1) == b"!"
            zygote = sandbox.zygote
            os.kill(zygote, signal.SIGSTOP)  # it cannot bury the cell
            began = time.monotonic()
            assert cell.kill().signal == 9
            assert time.monotonic() - began < 2
            assert neighbour.kill() == Ending(exit_code=None, signal=9, out_of_memory=False)  # killed with it: no failure
            assert said(sandbox, "echo", b"!") == b"0!"
            assert sandbox.zygote != zygote
            assert channel.recv(10) == b""
        deadline = time.monotonic() + 5
        while module._abandoned and time.monotonic() < deadline:
            module._abandoned[:] = [outpost for outpost in module._abandoned if not outpost.bury()]
            time.sleep(0.05)
        assert module._abandoned == []


def test_sandboxes_never_share_a_slot() -> None:
    with opened() as first, opened() as second, opened() as third:
        assert len({box._outpost.slot.number for box in (first, second, third) if box._outpost}) == 3
        assert said(first, "echo", b"1") + said(second, "echo", b"2") + said(third, "echo", b"3") == b"010203"


_TRAINER = """
import socket, sys, time
from pathlib import Path
from delta_lightning.sandbox import Limits, Sandbox
sandbox = Sandbox.open(drivers=[Path(sys.argv[1])], rung=sys.argv[2], allow_unsafe=True)
ours, theirs = socket.socketpair()
cell = sandbox.start("jobs_driver:sleep", channels=[theirs], limits=Limits(), argument=sys.argv[3].encode())
ours.recv(1)
print(sandbox.zygote, flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("rung", [*RUNGS, "unsafe"])
def test_everything_dies_with_the_trainer(rung: str) -> None:
    rungs.need(rung)
    argument = "" if rung == "landlock" else "children"
    trainer = subprocess.Popen([sys.executable, "-c", _TRAINER, str(DRIVER), rung, argument], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    with trainer, trainer.stdout:
        zygote = int(trainer.stdout.readline())
        family = {zygote, *(int(name.split("(")[-1].rstrip(")")) for name in hostile.descendants(zygote))}
        assert len(family) >= 2
        trainer.kill()
    deadline = time.monotonic() + 3
    while any(_lives(process) for process in family) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [process for process in family if _lives(process)] == []


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_closing_leaves_nothing() -> None:
    rungs.need("auto")
    before = set(os.listdir("/proc/self/fd"))
    sandbox = Sandbox.open(drivers=[DRIVER])
    cell, channel = begin(sandbox, "sleep")
    zygote = sandbox.zygote
    sandbox.close()
    assert not _lives(zygote)
    channel.close()
    assert cell.wait(1) == Ending(exit_code=None, signal=9, out_of_memory=False)
    assert set(os.listdir("/proc/self/fd")) <= before
