"""A verifier process as its owner sees it: started, fed, measured and killed."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.spawn import get_executable, get_preparation_data
from pathlib import Path

from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt
from delta_lightning.verifiers.pool.worker import Report, Setup

_PROGRAM = "import sys; sys.path[:] = {path!r}; from delta_lightning.verifiers.pool.worker import main; main({descriptor})"
_STALL = 1.0  # seconds that a read or write may stand still: a worker that was stopped must not hold up the others
_FAREWELL = 1.0  # seconds to wait for a killed process; one in an uninterruptible call is left to the kernel


class Item:
    """One completion on its way through the pool.

    Attributes:
        key: the submitter's name for it. work: what is sent to the worker.
        size: about how many bytes it takes: characters, and 8 per token. deaths: of workers that ran it.
    """

    __slots__ = ("deaths", "key", "size", "work")

    def __init__(self, key: Hashable, prompt: Prompt, completion: Completion) -> None:
        self.key = key
        # Log-probabilities are most of a completion's bytes and no verifier's business.
        self.work = (prompt, replace(completion, logprobs=(), raw_logprobs=()))
        self.size = len(prompt.text) + len(completion.text) + 8 * (len(prompt.token_ids) + len(completion.token_ids))
        self.deaths = 0


class WorkerProcess:
    """A worker process, the socket to it, and the items that it holds, the running one first.

    The kernel kills it when the thread that made it ends, so that a crash of the trainer leaves nothing behind.

    Args:
        setup: the first message, from `setup_message`.
    """

    def __init__(self, setup: bytes) -> None:
        ours, theirs = socket.socketpair()
        stall = struct.pack("ll", int(_STALL), int(_STALL % 1 * 1e6))
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, stall)
        with theirs:
            self.process = subprocess.Popen(
                [get_executable(), "-c", _PROGRAM.format(path=sys.path, descriptor=theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONHASHSEED": "0"},  # sets print and sort alike in every worker and every run
                process_group=0,  # so that what a verifier starts is killed with it, and Ctrl-C passes it by
            )
        self.connection: Connection = Connection(ours.detach())
        self.ready = False
        self.held: deque[Item] = deque()
        self.finished = 0  # items answered
        self.since = self.measured = time.monotonic()  # when the running item (or the start-up) began; when memory was read
        with contextlib.suppress(OSError):  # it is dead already; its end of the socket says so
            self.connection.send_bytes(setup)

    def send(self, items: Sequence[Item]) -> bool:
        """Hand a batch to an idle worker; False if it is dead or does not read, and then has to be killed."""
        self.held.extend(items)
        self.since = time.monotonic()
        try:
            self.connection.send([item.work for item in items])
        except OSError:
            return False
        return True

    def reports(self) -> list[Report] | None:
        """Every report that has arrived; None once the worker is dead or stuck in the middle of one."""
        found: list[Report] = []
        try:
            while self.connection.poll():
                found.append(self.connection.recv())
        except (EOFError, OSError):
            return found or None  # what it said last still counts; the next call finds it dead
        return found

    def resident_mib(self) -> float:
        """Memory that the process itself holds now, MiB; 0 where the system does not tell."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def kill(self) -> str:
        """SIGKILL to the worker and its process group; says how it ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.connection.close()
        try:
            status = self.process.wait(_FAREWELL)
        except subprocess.TimeoutExpired:
            return "without being reaped"
        return f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"


def setup_message(verifier: Verifier) -> bytes:
    """The first message to every worker. Raises `ConfigError` for a verifier that does not pickle."""
    try:
        part = pickle.dumps(verifier)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        name = type(verifier).__name__
        remedy = "Define its class in a module, and keep open files, locks and lambdas out of its fields."
        raise ConfigError(name, wanted="a verifier that pickles", got=str(error), remedy=remedy) from error
    # The trainer's __main__ is run again in the worker only where the verifier's own class stands in it.
    wanted = {"sys_path", "sys_argv", "dir", "orig_dir"}
    if b"__main__" in part:
        wanted |= {"init_main_from_name", "init_main_from_path"}
    preparation = {key: value for key, value in get_preparation_data("verifier").items() if key in wanted}
    return pickle.dumps(Setup(preparation=preparation, verifier=part, parent=os.getpid()))
