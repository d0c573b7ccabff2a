"""Bubblewrap in a user namespace: what it promises depends on who counts processes and memory."""

from __future__ import annotations

import os

import pytest

from delta_lightning.sandbox import rung as rung_module
from delta_lightning.sandbox.bwrap_user import BwrapUser
from delta_lightning.sandbox.interpreter import Interpreter
from delta_lightning.sandbox.rung import PROBES, counts_own_processes
from delta_lightning.sandbox.slots import Slot


def test_it_asks_for_a_user_namespace_and_keeps_one_uid() -> None:
    launch = BwrapUser().launch(Slot(number=0, descriptor=-1), Interpreter.find(), [])
    assert {"--unshare-user", "--unshare-all"} <= set(launch.wrapper)
    assert launch.plan.uids is None
    assert launch.plan.watch_memory


@pytest.mark.parametrize(
    ("release", "uid", "counts"),
    [
        ("6.1.0", 1000, True),
        ("5.14.0-x", 1000, True),
        ("5.13.0", 1000, False),
        ("4.18.0-el8", 1000, False),
        ("6.1.0", 0, False),
    ],
)
def test_whether_the_kernel_counts_its_processes(release: str, uid: int, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    uname = os.uname()
    monkeypatch.setattr(rung_module.os, "uname", lambda: os.uname_result((uname[0], uname[1], release, uname[3], uname[4])))
    monkeypatch.setattr(rung_module.os, "geteuid", lambda: uid)
    assert counts_own_processes() is counts
    assert ("processes" in BwrapUser().promises()) is counts
    assert any("number of processes" in line for line in BwrapUser().missing) is not counts
    assert BwrapUser(process_group=True).promises() == set(PROBES)
