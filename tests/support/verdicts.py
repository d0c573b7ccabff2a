"""Prompts, completions and verifiers for the tests of verification."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Status, Verdict
from delta_lightning.verifiers.pool import VerifierPool


def prompt_with(answer: object) -> Prompt:
    return Prompt(id="p", text="What is it?", token_ids=(1, 2), source="test", reference={"answer": answer})


def completion_of(text: str) -> Completion:
    return Completion(
        prompt_id="p",
        sample_index=0,
        token_ids=(3, 4),
        text=text,
        finish_reason="stop",
        version=0,
        logprobs=(-0.5, -0.5),
        raw_logprobs=(-0.5, -0.5),
    )


_LEAKED: list[bytearray] = []
_PR_SET_PDEATHSIG = 1


def start_sleeper(path: Path, *, detached: bool) -> None:
    """A child that sleeps and writes its process id; detached: in a session of its own, bound to its parent by the kernel."""
    ready, signalled = os.pipe()
    child = os.fork()
    if child == 0:
        if detached:
            os.setsid()
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.write(signalled, b"!")
        while True:
            time.sleep(600)
    os.read(ready, 1)
    path.write_text(str(child))


@dataclass(frozen=True, kw_only=True)
class Obedient(Verifier):
    """Does what the completion's text says, so that a test can break a worker in any way."""

    scale: float = 1.0

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        command, _, argument = completion.text.partition(" ")
        if command == "sleep":
            time.sleep(float(argument))
        elif command == "hang":  # one C call: no signal handler and no other thread of Python runs
            pow(7, 10**9)
        elif command == "raise":
            raise ValueError(argument)
        elif command == "exit":
            sys.exit(3)
        elif command == "die":
            os._exit(int(argument))
        elif command == "signal":
            os.kill(os.getpid(), int(argument))
            time.sleep(60)
        elif command == "recurse":
            return self.score(prompt, completion)
        elif command == "once":  # the first worker that runs it dies
            if not Path(argument).exists():
                Path(argument).touch()
                os._exit(5)
        elif command in ("plain", "detached"):
            start_sleeper(Path(argument), detached=command == "detached")
        elif command == "grow":  # MiB, for as long as it takes somebody to notice
            hoard = bytearray(int(argument) * 2**20)
            hoard[::4096] = b"x" * len(hoard[::4096])
            time.sleep(60)
        elif command == "leak":
            _LEAKED.append(bytearray(b"x") * (int(argument) * 2**20))
            time.sleep(0.02)
        elif command == "orphan":
            child = os.fork()
            if child:
                Path(argument).write_text(str(child))
            time.sleep(600)
        return self._answer(command, argument, completion)

    def _answer(self, command: str, argument: str, completion: Completion) -> Verdict:
        if command == "return":
            return None  # type: ignore[return-value]
        if command == "nan":
            return Verdict(status=Status.CORRECT, reward=float("nan"))
        if command == "unpicklable":

            class Local(str):
                __slots__ = ()

            return Verdict(status=Status.CORRECT, reward=1.0, reason=Local("x"))
        if command == "measure":
            return Verdict(status=Status.CORRECT, reward=1.0, measures={"share": float(argument)})
        if command in ("unavailable", "error", "no_answer", "timeout"):
            return Verdict(status=Status(command), reward=0.0, reason=argument)
        if command in ("once", "plain", "detached", "leak"):
            return Verdict(status=Status.CORRECT, reward=1.0)
        if command == "modules":
            return Verdict(status=Status.CORRECT, reward=1.0, reason=" ".join(sorted(sys.modules)))
        if command == "logprobs":
            return Verdict(status=Status.CORRECT, reward=float(len(completion.logprobs)), reason=str(completion.token_ids))
        if command == "handler":
            return Verdict(status=Status.CORRECT, reward=float(signal.getsignal(signal.SIGINT) is signal.SIG_IGN))
        if command == "pid":
            return Verdict(status=Status.CORRECT, reward=1.0, reason=str(os.getpid()))
        return Verdict(status=Status.CORRECT, reward=self.scale * float(argument or 0))


@dataclass(frozen=True, kw_only=True)
class Unready(Verifier):
    """Cannot start: raises, or dies, in `warm_up`."""

    how: str

    def warm_up(self) -> None:
        if self.how == "die":
            os._exit(9)
        raise ImportError("no module named mathematics")

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        return Verdict(status=Status.CORRECT, reward=1.0)


@dataclass(frozen=True, kw_only=True)
class ShortLived(Verifier):
    """Its process ends soon after it is ready, whatever it is asked."""

    def warm_up(self) -> None:
        threading.Timer(0.1, os._exit, [4]).start()

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        return Verdict(status=Status.CORRECT, reward=1.0)


def ask(pool: VerifierPool, *texts: str) -> list[Verdict]:
    """The verdicts in the order of the texts."""
    for key, text in enumerate(texts):
        pool.submit(key, prompt_with("42"), completion_of(text))
    verdicts = dict(pool.drain())
    return [verdicts[key] for key in range(len(texts))]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pids: list[int], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)
