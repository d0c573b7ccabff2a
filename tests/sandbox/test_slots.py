"""Leases: one holder, across processes, until the last that was given it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from delta_lightning.errors import RunError
from delta_lightning.sandbox import slots


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(slots, "folder", lambda: tmp_path)
    monkeypatch.setattr(slots, "FIRST_UID", 700_000)  # sandboxes of other runs may be at work right now
    return tmp_path


@pytest.mark.usefixtures("place")
def test_a_slot_has_one_holder_and_is_free_again_afterwards() -> None:
    first, second = slots.lease(), slots.lease()
    assert first.number != second.number
    assert set(first.uids).isdisjoint(second.uids)
    first.release()
    third = slots.lease()
    assert third.number == first.number
    for slot in (second, third):
        slot.release()


def test_another_process_sees_the_lease_and_its_end_frees_it(place: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom delta_lightning.sandbox import slots\n"
        "slots.folder = lambda: Path(sys.argv[1])\nslots.FIRST_UID = 700_000\n"
        "print(slots.lease().number, flush=True)\nsys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        mine = slots.lease()
        assert mine.number != taken
        other.kill()
    again = slots.lease()
    assert again.number == taken
    for slot in (mine, again):
        slot.release()


def test_a_lease_lasts_as_long_as_whoever_was_given_it(place: Path) -> None:
    mine = slots.lease()
    keeper = subprocess.Popen(["sleep", "60"], pass_fds=[mine.descriptor])
    with keeper:
        mine.release()
        other = slots.lease()
        assert other.number != mine.number
        keeper.kill()
    again = slots.lease()
    assert again.number == mine.number
    for slot in (other, again):
        slot.release()


@pytest.mark.usefixtures("place")
def test_a_slot_whose_uid_still_has_a_process_is_skipped() -> None:
    if os.geteuid() != 0:
        pytest.skip("uids of slots are root's to give")
    free = slots.lease()
    free.release()
    squatter = subprocess.Popen(["sleep", "60"], user=free.uids[1], group=free.uids[1])
    with squatter:
        slot = slots.lease()
        assert slot.number != free.number
        slot.release()
        squatter.kill()


@pytest.mark.usefixtures("place")
def test_when_all_are_taken_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOTS", 2)
    held = [slots.lease(), slots.lease()]
    with pytest.raises(RunError, match="All 2 slots"):
        slots.lease()
    for slot in held:
        slot.release()


def test_the_folder_must_be_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(slots.os, "access", lambda path, mode: False)
    made = slots.folder()
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o777)
    with pytest.raises(RunError, match="open to others"):
        slots.folder()


def test_threads_are_counted() -> None:
    assert slots.threads_of(os.getuid()) >= 1
    assert slots.threads_of(4_000_000) == 0
