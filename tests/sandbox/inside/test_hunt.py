"""What the zygote sees in /proc. In processes of their own: the hunt kills whatever it finds below it."""

from __future__ import annotations

import subprocess
import sys

_MEMORY = """
import os, time
from delta_lightning.sandbox.inside import hunt, kernel
kernel.adopt_orphans()
read, write = os.pipe()
child = os.fork()
if child == 0:
    block = bytearray(30 << 20)
    for place in range(0, len(block), 4096): block[place] = 1
    if os.fork() == 0:  # shares the block until it writes to it, and yet counts in full
        os.write(write, b"!")
    time.sleep(60)
os.read(read, 1)
print(hunt.memory({child})[child] >> 20, hunt.memory({999999}))
hunt.orphans(set())
"""

_ORPHANS = """
import os, time
from delta_lightning.sandbox.inside import hunt, kernel
kernel.adopt_orphans()
spared = os.fork()
if spared == 0:
    time.sleep(60)
child = os.fork()
if child == 0:
    os.setsid()
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
    os._exit(0)
os.waitpid(child, 0)
print(hunt.orphans({spared}), os.waitpid(spared, os.WNOHANG))
print(hunt.orphans(set()))
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("none left")
"""


def _run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_memory_of_a_process_and_all_below_it() -> None:
    (line,) = _run(_MEMORY)
    mib, _, rest = line.partition(" ")
    assert 58 <= int(mib) <= 75
    assert rest == "{999999: 0}"


def test_orphans_are_killed_however_they_detached_themselves_and_others_are_spared() -> None:
    assert _run(_ORPHANS) == ["True (0, 0)", "True", "none left"]
