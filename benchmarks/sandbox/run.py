"""Cells per second of every rung that this machine can enter, beside a fresh Python and a fresh bubblewrap for each program.

    python benchmarks/sandbox/run.py [seconds of each measurement]

Writes results.json beside itself: command, commit, machine, numbers.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from delta_lightning.errors import ConfigError
from delta_lightning.sandbox import Limits, Sandbox, self_test

RUNGS = ("bwrap-root", "bwrap-user", "unshare", "landlock", "unsafe")
DRIVER = """
import os, time
def reply(channels, argument):
    os.write(channels[0], b"!")
def bomb(channels, argument):
    os.write(channels[0], b"!")
    while True:
        try: os.fork()
        except OSError: pass
def hog(channels, argument):
    block = bytearray(200 << 20)
    for place in range(0, len(block), 4096): block[place] = 1
    os.write(channels[0], b"!")
    time.sleep(3600)
"""
LIMITS = Limits(memory_mib=256, processes=32)


def rate(job: Callable[[], None], seconds: float) -> float:
    """Jobs per second, one after the other."""
    job()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        job()
        count += 1
    return count / (time.perf_counter() - began)


def cells(driver: str, rung: str, seconds: float) -> float:
    """Cells per second of one process: started, one byte over a channel, ended and empty."""
    sandbox = Sandbox.open(drivers=[Path(driver)], rung=rung, allow_unsafe=True)
    try:
        return rate(lambda: _one(sandbox), seconds)
    finally:
        sandbox.close()


def processor(driver: str, rung: str, count: int) -> float:
    """Milliseconds of processor time of a cell: this process's, the zygote's and the cell's; hardly depends on other load."""
    sandbox = Sandbox.open(drivers=[Path(driver)], rung=rung, allow_unsafe=True)
    try:
        _one(sandbox)
        before = time.process_time() + _family_time(sandbox.zygote)
        for _ in range(count):
            _one(sandbox)
        return 1000 * (time.process_time() + _family_time(sandbox.zygote) - before) / count
    finally:
        sandbox.close()


def _family_time(process: int) -> float:
    """Seconds that a process and its children that have ended have used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _one(sandbox: Sandbox) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        cell = sandbox.start("driver:reply", channels=[theirs], limits=LIMITS)
        assert ours.recv(1) == b"!"
        assert cell.wait(5) is not None


def kills(driver: str, rung: str, job: str) -> list[float]:
    """Milliseconds from `kill` to an empty cell."""
    sandbox = Sandbox.open(drivers=[Path(driver)], rung=rung)
    times = []
    try:
        for _ in range(7):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                cell = sandbox.start(f"driver:{job}", channels=[theirs], limits=LIMITS)
                ours.recv(1)
                time.sleep(0.1)
                began = time.perf_counter()
                cell.kill()
                times.append(1000 * (time.perf_counter() - began))
    finally:
        sandbox.close()
    return times


def measure(rung: str, driver: str, seconds: float, cores: int) -> dict[str, float]:
    """Everything about one rung."""
    began = time.perf_counter()
    Sandbox.open(drivers=[Path(driver)], rung=rung, allow_unsafe=True).close()
    found = {"open_and_close_ms": 1000 * (time.perf_counter() - began)}
    found["self_test_seconds"] = self_test(rung, allow_unsafe=True).seconds
    found["processor_ms_per_cell"] = processor(driver, rung, 500)
    found["cells_per_second_one_process"] = cells(driver, rung, seconds)
    with ProcessPoolExecutor(cores) as pool:
        parts = [pool.submit(cells, driver, rung, seconds) for _ in range(cores)]
        found["cells_per_second_one_process_per_core"] = sum(part.result() for part in parts)
    if rung != "unsafe":
        for job in ("bomb", "hog"):
            times = kills(driver, rung, job)
            found[f"kill_{job}_ms_median"], found[f"kill_{job}_ms_most"] = statistics.median(times), max(times)
    return found


def table(results: dict[str, object]) -> str:
    """The README's table."""
    heads = ("rung", "processor time per cell, ms", "at most, per core and second", "cells per second, one process")
    heads += ("one process per core, together", "open and close, ms", "self-test, s")
    heads += ("kill a fork bomb, ms (most)", "kill 200 MiB, ms (most)")
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for rung in RUNGS:
        found = results[rung]
        if not isinstance(found, dict):
            continue
        cells = [
            rung,
            f"{found['processor_ms_per_cell']:.1f}",
            f"{1000 / found['processor_ms_per_cell']:.0f}",
            f"{found['cells_per_second_one_process']:.0f}",
            f"{found['cells_per_second_one_process_per_core']:.0f}",
            f"{found['open_and_close_ms']:.0f}",
            f"{found['self_test_seconds']:.1f}",
        ]
        for job in ("bomb", "hog"):
            median, most = (found.get(f"kill_{job}_ms_{what}") for what in ("median", "most"))
            cells.append("-" if median is None else f"{median:.0f} ({most:.0f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    here, cores = Path(__file__).parent, len(os.sched_getaffinity(0))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
    results: dict[str, object] = {
        "command": f"python benchmarks/sandbox/run.py {seconds:g}",
        "commit": commit.stdout.strip(),
        "machine": f"{cores} cores, {platform.platform()}, Python {platform.python_version()}",
        "load_before": os.getloadavg()[0],
        "uid": os.geteuid(),
    }
    python = [sys._base_executable, "-I", "-S", "-c", "pass"]  # type: ignore[attr-defined]
    results["fresh_python_per_second"] = rate(lambda: subprocess.run(python, check=True), seconds)
    if shutil.which("bwrap"):
        view = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--unshare-all"]
        results["fresh_bwrap_per_second"] = rate(lambda: subprocess.run(["bwrap", *view, *python], check=True), seconds)
    with tempfile.TemporaryDirectory() as folder:
        driver = Path(folder) / "driver.py"
        driver.write_text(DRIVER)
        for rung in RUNGS:
            try:
                results[rung] = measure(rung, str(driver), seconds, cores)
            except ConfigError as error:
                results[rung] = str(error)
    (here / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps({name: value for name, value in results.items() if name not in RUNGS}, indent=2))
    print(table(results))


if __name__ == "__main__":
    main()
