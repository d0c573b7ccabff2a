"""Runs a vLLM server so that nothing of it outlives the trainer. Run as a file: it imports the standard library only.

    python guardian.py TRAINER_PID COMMAND ...

The server gets a session of its own. When the trainer ends, by whatever hand, when SIGTERM comes, or when the server's first
process ends, all processes of that session are ended: vLLM's own would live on, with the GPU's memory. Exits with the server's
exit code, 128 + N where signal N ended it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

GRACE = 10.0  # seconds that vLLM has to end by itself
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None)
_STOP, _ENDED, _ORPHANED = signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1
_AWAITED = (_STOP, _ENDED, _ORPHANED)


def main(arguments: list[str]) -> int:
    """Start the command, wait, clean up."""
    trainer = int(arguments[0])
    signal.pthread_sigmask(signal.SIG_BLOCK, [*_AWAITED, signal.SIGINT])  # Ctrl-C is the trainer's affair
    _die_with_parent(_ORPHANED)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # processes that the server leaves behind become ours, and are reaped
    if os.getppid() != trainer:  # it ended before the line above
        return 0
    server = subprocess.Popen(arguments[1:], start_new_session=True, preexec_fn=_as_server)
    while server.poll() is None:
        came = signal.sigwait(_AWAITED)
        if came == _STOP:
            server.terminate()
            _wait(server, GRACE)
            break
        if os.getppid() != trainer:  # else only the thread ended that had started this process
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    code = server.wait()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    return code if code >= 0 else 128 - code


def _wait(server: subprocess.Popen[bytes], seconds: float) -> None:
    until = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < until:
        time.sleep(0.05)


def _die_with_parent(number: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _as_server() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [*_AWAITED, signal.SIGINT])
    _die_with_parent(signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
