"""Namespaces without bubblewrap."""

from __future__ import annotations

import os

import pytest

from delta_lightning.sandbox import Sandbox, bwrap_root
from delta_lightning.sandbox import unshare as unshare_module
from delta_lightning.sandbox.interpreter import Interpreter
from delta_lightning.sandbox.rung import PROBES
from delta_lightning.sandbox.slots import Slot
from delta_lightning.sandbox.unshare import Unshare
from support import rungs

SLOT = Slot(number=1, descriptor=-1)


def test_root_gets_uids_and_others_a_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    for uid, full, uids in ((0, True, (60002, 60003)), (1000, False, None), (0, False, None)):
        monkeypatch.setattr(unshare_module.os, "geteuid", lambda uid=uid: uid)
        monkeypatch.setattr(unshare_module, "holds", lambda *_, full=full: full)
        plan = Unshare().launch(SLOT, Interpreter.find(), []).plan
        assert plan.outside is not None
        assert plan.uids == uids
        assert plan.outside["user_namespace"] is not full
        assert "/usr" in plan.outside["readable"]
        assert (Unshare(memory_group=True).missing == ()) is full


def test_without_bubblewrap_it_is_the_next_that_auto_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    rungs.need("unshare")
    monkeypatch.setattr(bwrap_root.shutil, "which", lambda name: None)
    sandbox = Sandbox.open(drivers=[])
    try:
        assert sandbox.rung.name == "unshare"
        assert all("not installed" in line or "not root" in line for line in sandbox.refused)
        if os.geteuid() == 0:
            assert sandbox.rung.promises() == set(PROBES)
    finally:
        sandbox.close()
