"""Bubblewrap as root: when it is refused, and what it asks bubblewrap for."""

from __future__ import annotations

import os

import pytest

from delta_lightning.sandbox import bwrap_root
from delta_lightning.sandbox.bwrap_root import BwrapRoot
from delta_lightning.sandbox.interpreter import Interpreter
from delta_lightning.sandbox.rung import PROBES
from delta_lightning.sandbox.slots import Slot
from support import rungs

SLOT = Slot(number=3, descriptor=-1)


def test_it_needs_root_and_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert BwrapRoot().obstacle() == "this process is not root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(bwrap_root.shutil, "which", lambda name: None)
    assert BwrapRoot().obstacle() == "bubblewrap (bwrap) is not installed"


def test_it_asks_for_every_namespace_but_the_user_s_and_a_uid_per_lane() -> None:
    launch = BwrapRoot(memory_group=True).launch(SLOT, Interpreter(program="/usr/bin/python3", folders=("/x/lib",)), ["/y"])
    for word in ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--clearenv", "--as-pid-1"):
        assert word in launch.wrapper
    assert "--unshare-user" not in launch.wrapper
    assert "--die-with-parent" not in launch.wrapper  # it would tie the sandbox to one thread of the trainer
    place = launch.wrapper.index("/x/lib")
    assert launch.wrapper[place - 1 : place + 2] == ("--ro-bind", "/x/lib", "/x/lib")
    assert launch.wrapper[-1] == "--"
    assert launch.plan.uids == (60006, 60007)
    assert launch.plan.folders == ("/y",)
    assert launch.plan.seccomp
    assert not launch.plan.watch_memory


def test_nothing_of_the_machine_is_bound_writable() -> None:
    wrapper = BwrapRoot().launch(SLOT, Interpreter.find(), []).wrapper
    assert "--bind" not in wrapper
    devices = [wrapper[place + 1] for place, word in enumerate(wrapper) if word == "--dev-bind"]
    assert set(devices) == {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}


def test_it_promises_everything_and_says_when_the_zygote_must_watch_memory() -> None:
    assert BwrapRoot().promises() == set(PROBES)
    assert BwrapRoot(memory_group=True).missing == ()
    assert "no memory control group" in BwrapRoot().missing[0]


def test_it_is_the_one_that_auto_takes_where_it_can_be_entered() -> None:
    from delta_lightning.sandbox import Sandbox

    rungs.need("bwrap-root")
    sandbox = Sandbox.open(drivers=[])
    assert (sandbox.rung.name, sandbox.refused) == ("bwrap-root", ())
    sandbox.close()
