"""What a verifier process runs. Started by `VerifierPool`, never by hand.

It reads over one socket: first how to find modules, then the pickled verifier, then batches of (prompt, completion); it
answers every item on its own. Started as a program of its own, it does not import the trainer's `__main__`, nor torch.
"""

from __future__ import annotations

import ctypes
import math
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.spawn import prepare
from typing import Any

from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Status, Verdict

_PR_SET_PDEATHSIG = 1
_MAX_REASON = 500  # characters; a reason is one line for people


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The first message to a worker.

    Attributes:
        preparation: `multiprocessing.spawn` data: module search path, working folder, log level.
        verifier: the pickled part.
        parent: process id of the pool's owner; the worker dies with the thread that started it, and with its process.
    """

    preparation: dict[str, Any]
    verifier: bytes
    parent: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """One message from a worker: ready (`verdict` None), broken (`failure`), or the verdict on the next item of its batch.

    Attributes:
        time: the machine's monotonic clock when the report was written, seconds; the next item's clock starts there.
    """

    time: float
    verdict: Verdict | None = None
    failure: str = ""


def main(descriptor: int) -> None:
    """Serve the socket with this file descriptor until the pool closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's affair
    connection = Connection(descriptor)
    try:
        _guard(descriptor)
        setup: Setup = connection.recv()
        _follow(setup)
        verifier = _prepared(connection, setup)
        if verifier is not None:
            _serve(connection, verifier)
    except (EOFError, ConnectionError):
        pass  # the trainer closed the pool or is gone
    # Threads that a verifier left running must not keep the process alive.
    os._exit(0)


def _guard(descriptor: int) -> None:
    """Start a process that kills this one's process group as soon as this one ends, by whatever hand.

    The kernel tells it of the end, so that programs which a verifier started do not outlive a worker that was killed from
    outside, or together with the trainer. It is forked before anything heavy is imported and sleeps in the kernel.
    """
    if sys.platform != "linux":
        return
    worker = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if os.fork() == 0:
        os.close(descriptor)  # or the pool would take the worker for alive
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        while os.getppid() == worker:
            signal.sigwait([signal.SIGTERM])
        os.killpg(worker, signal.SIGKILL)  # itself too
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow(setup: Setup) -> None:
    """Die with the parent, even in the middle of a computation that never looks at the socket."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != setup.parent:
        os._exit(0)


def _prepared(connection: Connection, setup: Setup) -> Verifier | None:
    """The verifier, warmed up, or None after reporting why there is none."""
    try:
        prepare(setup.preparation)
        verifier = pickle.loads(setup.verifier)
        verifier.warm_up()
    except BaseException:  # noqa: BLE001 -- reported to the trainer, which stops the run
        connection.send(Report(time=time.monotonic(), failure=traceback.format_exc(limit=-3)))
        return None
    connection.send(Report(time=time.monotonic()))
    return verifier  # type: ignore[no-any-return]


def _serve(connection: Connection, verifier: Verifier) -> None:
    while True:
        batch: list[tuple[Prompt, Completion]] = connection.recv()
        for prompt, completion in batch:
            verdict = _judged(verifier, prompt, completion)
            try:
                connection.send(Report(time=time.monotonic(), verdict=verdict))
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                connection.send(Report(time=time.monotonic(), verdict=_error(f"verdict cannot be sent: {error}")))


def _judged(verifier: Verifier, prompt: Prompt, completion: Completion) -> Verdict:
    """The verdict; an exception or an impossible verdict becomes `Status.ERROR`."""
    try:
        verdict = verifier.score(prompt, completion)
        problem = _impossible(verdict)
    except BaseException as error:  # noqa: BLE001 -- SystemExit too: reported as the status and its reason
        return _error(f"{type(error).__name__}: {error}")
    if problem:
        return _error(f"score() returned {problem}")
    reason = _sayable(verdict.reason)
    return verdict if reason == verdict.reason else replace(verdict, reason=reason)


def _impossible(verdict: Any) -> str:
    """What is wrong with what a plug-in returned; empty if nothing is."""
    if not isinstance(verdict, Verdict):
        return f"{type(verdict).__name__}, not a Verdict"
    status: Any = verdict.status
    reason: Any = verdict.reason
    if not isinstance(status, Status) or not isinstance(reason, str):
        return f"the status {status!r} with a reason of type {type(reason).__name__}"
    numbers: dict[str, Iterable[Any]] = {
        "the reward": [verdict.reward],
        "components with": verdict.components.values(),
        "measures with": verdict.measures.values(),
        "token weights with": verdict.token_weights or (),
    }
    for what, values in numbers.items():
        for value in values:
            if not isinstance(value, int | float) or not math.isfinite(value):
                return f"{what} {value!r}"
    return ""


def _error(reason: str) -> Verdict:
    return Verdict(status=Status.ERROR, reward=0.0, reason=_sayable(reason))


def _sayable(reason: str) -> str:
    """Cut, and fit to be written: half a surrogate pair, which a program may put into its error, is no UTF-8."""
    return reason[:_MAX_REASON].encode("utf-8", "backslashreplace").decode()
