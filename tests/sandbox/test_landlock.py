"""Landlock without namespaces: what it refuses, and what it says it lacks."""

from __future__ import annotations

import os

import pytest

from delta_lightning.sandbox import Sandbox
from delta_lightning.sandbox import landlock as landlock_module
from delta_lightning.sandbox.landlock import Landlock
from delta_lightning.sandbox.rung import PROBES
from support import hostile, rungs

FORK = "import os\ndef add(a, b):\n    if os.fork() == 0: os._exit(0)\n    return a + b\n"
FILE = "def add(a, b):\n    with open('/tmp/x', 'w') as file: file.write('x')\n    return a + b\n"
THREAD = (
    "import threading\ndef add(a, b):\n    r = []\n    t = threading.Thread(target=lambda: r.append(a + b))\n"
    "    t.start(); t.join()\n    return r[0]\n"
)


def test_a_kernel_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock_module, "landlock_version", lambda: 0)
    assert "no Landlock" in str(Landlock().obstacle())


def test_threads_work_and_what_it_lacks_is_exactly_what_fails() -> None:
    rungs.need("landlock")
    sandbox = Sandbox.open(drivers=[hostile.DRIVER], rung="landlock")
    try:
        assert hostile.judge(sandbox, THREAD, limit=5.0).passed
        assert "Operation not permitted" in hostile.judge(sandbox, FORK, limit=5.0).reason
        assert "Permission denied" in hostile.judge(sandbox, FILE, limit=5.0).reason
        assert "right programs that start processes or write files fail" in sandbox.rung.missing
    finally:
        sandbox.close()
    assert not os.path.exists("/tmp/x")


@pytest.mark.parametrize("python", [None, "/usr/bin/python3"])
def test_it_has_a_uid_of_its_own_only_where_others_may_run_the_interpreter(python: str | None) -> None:
    rungs.need("landlock", python)
    sandbox = Sandbox.open(drivers=[hostile.DRIVER], rung="landlock", python=python)
    try:
        own = isinstance(sandbox.rung, Landlock) and sandbox.rung.own_uid
        assert own is not any("no uid of its own" in line for line in sandbox.rung.missing)
        if python is not None and os.geteuid() == 0:
            assert own
        assert hostile.judge(sandbox, hostile.GOOD, limit=5.0).passed
    finally:
        sandbox.close()


def test_it_promises_everything_because_there_is_one_process() -> None:
    assert Landlock().promises() == set(PROBES)
    assert any("loose" in line for line in Landlock().missing)
    assert not any("loose" in line for line in Landlock(process_group=True).missing)
