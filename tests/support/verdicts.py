"""Prompts, completions and verifiers for the tests of verification."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Status, Verdict


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
            return Verdict(status=Status.CORRECT, reward=1.0, reason=lambda: 0)  # type: ignore[arg-type]
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
