"""A guarded server leaves nothing behind, whoever ends. The "server" is a small program with a child, as vLLM has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from delta_lightning.samplers.servers import guardian
from support.weight_server import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM runs on Linux")

SERVER = """
import os, pathlib, signal, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
(folder / "draft").write_text(f"{os.getpid()} {child.pid}")
(folder / "draft").rename(folder / "pids")
if "ends" in sys.argv:
    sys.exit(7)
time.sleep(600)
"""


def start(folder: Path, *how: str) -> tuple[subprocess.Popen[bytes], list[int]]:
    """The guardian of a server, as this process's child, and the server's processes."""
    command = [sys.executable, "-I", guardian.__file__, str(os.getpid()), sys.executable, "-c", SERVER, str(folder), *how]
    process = subprocess.Popen(command)
    until((folder / "pids").exists)
    return process, [int(pid) for pid in (folder / "pids").read_text().split()]


def gone(pid: int) -> bool:
    """True if no such process runs; one that nobody has waited for yet counts as gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def test_asked_to_stop_it_ends_the_server_and_what_the_server_started(tmp_path: Path) -> None:
    process, pids = start(tmp_path)
    assert not any(map(gone, pids))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert all(map(gone, pids))


def test_a_server_that_does_not_listen_is_killed_after_a_while(tmp_path: Path) -> None:
    process, pids = start(tmp_path, "deaf")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGKILL
    assert time.monotonic() - begun >= guardian.GRACE and all(map(gone, pids))


@pytest.mark.parametrize("how", ["exits", "is killed"])
def test_a_server_that_ends_takes_its_children_along_and_its_exit_code_is_kept(tmp_path: Path, how: str) -> None:
    process, pids = start(tmp_path, *(["ends"] if how == "exits" else []))
    if how == "is killed":
        os.kill(pids[0], signal.SIGKILL)
    assert process.wait(60) == (7 if how == "exits" else 128 + signal.SIGKILL)
    assert all(map(gone, pids))


def test_a_guardian_that_is_killed_takes_the_server_along(tmp_path: Path) -> None:
    process, pids = start(tmp_path)
    process.kill()
    process.wait()
    try:
        until(lambda: gone(pids[0]))
    finally:
        for pid in pids:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


def test_nothing_outlives_a_trainer_that_is_killed(tmp_path: Path) -> None:
    trainer = subprocess.Popen([sys.executable, "-c", f"""
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-I", {guardian.__file__!r}, str(os.getpid()),
                  sys.executable, "-c", {SERVER!r}, {str(tmp_path)!r}])
time.sleep(600)
"""])  # fmt: skip
    until((tmp_path / "pids").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    trainer.kill()
    trainer.wait()
    until(lambda: all(map(gone, pids)))


def test_the_end_of_the_thread_that_started_it_is_not_the_trainer_s(tmp_path: Path) -> None:
    """The kernel sends the parent's death signal then too."""
    import threading

    found: list[tuple[subprocess.Popen[bytes], list[int]]] = []
    thread = threading.Thread(target=lambda: found.append(start(tmp_path)))
    thread.start()
    thread.join()
    [(process, pids)] = found
    time.sleep(1.0)
    assert process.poll() is None and not any(map(gone, pids))
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert all(map(gone, pids))


def test_a_trainer_that_was_gone_before_gets_no_server(tmp_path: Path) -> None:
    command = [sys.executable, "-I", guardian.__file__, "1", sys.executable, "-c", SERVER, str(tmp_path)]
    assert subprocess.run(command, timeout=60).returncode == 0
    assert not (tmp_path / "pids").exists()
