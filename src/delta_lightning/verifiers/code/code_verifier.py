"""Code: a program against its data set's tests, both in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from delta_lightning.errors import RunError, require
from delta_lightning.interfaces import Verifier
from delta_lightning.sandbox import Limits
from delta_lightning.types import Completion, Example, Prompt, Status, Verdict
from delta_lightning.verifiers.code.call_judge import judge_calls
from delta_lightning.verifiers.code.formats import Mbpp, TestFormat
from delta_lightning.verifiers.code.formats.test_format import CallTests, Unusable
from delta_lightning.verifiers.code.input_judge import judge_inputs
from delta_lightning.verifiers.code.outcome import Outcome
from delta_lightning.verifiers.code.programs import FencedBlock, ProgramSource
from delta_lightning.verifiers.code.sandboxes import forget, sandbox_for
from delta_lightning.verifiers.code.suspicion import suspicious

_MARGIN = 1.0  # seconds that killing and cleaning up may take after the limit

# Examples for the laws, by whether the tests call: right, wrong.
_PROGRAMS = {
    True: ("def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"),
    False: ("print(sum(map(int, input().split())))\n", "print(0)\n"),
}


@dataclass(frozen=True, kw_only=True)
class CodeVerifier(Verifier):
    """1 where the completion's program passes its tests, else 0; nothing of it ever runs in a trusted process.

    The program lives alone in one sandbox cell and answers calls with plain data; the tests run in a second cell, which the
    program cannot see, and call it through a proxy; this process waits for a verdict of one line. What can cross between the
    two, and how, is in `docs/code.md`; what a cell cannot do, in `docs/sandbox.md`.

    Statuses: CORRECT, all tests passed; INCORRECT, also for a syntax error, an exception, too much memory; NO_ANSWER without
    a program; TIMEOUT past `seconds`; ERROR, which is no reward, when the reference cannot be used, the data set's own tests
    fail by themselves, or the sandbox fails.

    Measures: `passed_share`, tests passed of all (those that time allowed); `suspicious`, 1 where the program names things
    that cheats need (`sys._getframe`, `ctypes`, `__eq__`, `os._exit`...): a rising share means that the reward is being hacked.

    Same program, same verdict, except near a limit of time or memory, and for programs or tests that draw random numbers.

    Args:
        tests: how the data set writes its tests: Mbpp, HumanEval, EvalPlus, TestScript, StdinStdout, Apps, LiveCodeBench.
        programs: where the program stands: FencedBlock, Continuation (base models), WholeText.
        reward: "all" is 1 if every test passes and 0 otherwise; "share" is the share of tests passed.
        seconds: wall-clock limit of a program with all its tests, above 0.
        limits: memory, processor time, processes, disk and open files of each cell. `cpu_seconds` must exceed `seconds`.
        packages: folders, read-only in the cells, from which programs and tests import (`pip install --target=FOLDER numpy`).
        rung: the rung of the sandbox's ladder, or "auto" for the safest that this machine can enter.
        allow_unsafe: accept the rung without isolation where no other can be entered. Never with a model's programs.

    Raises:
        ConfigError: a field out of range; from `check`, no sandbox on this machine or no such folder.
    """

    tests: TestFormat = Mbpp()  # noqa: RUF009 -- immutable
    programs: ProgramSource = FencedBlock()  # noqa: RUF009 -- immutable
    reward: Literal["all", "share"] = "all"
    seconds: float = 6.0
    limits: Limits = Limits()  # noqa: RUF009 -- immutable
    packages: tuple[str, ...] = ()
    rung: str = "auto"
    allow_unsafe: bool = False

    def __post_init__(self) -> None:
        require(self.reward in ("all", "share"), "reward", wanted="all or share", got=self.reward, remedy="all is usual.")
        require(self.seconds > 0, "seconds", wanted="seconds > 0", got=self.seconds, remedy="6 is usual.")
        require(
            self.limits.cpu_seconds > self.seconds,
            "limits.cpu_seconds",
            wanted=f"more than seconds={self.seconds}, so that a busy program is a TIMEOUT and not a crash",
            got=self.limits.cpu_seconds,
            remedy="Raise it, or lower seconds.",
        )

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        try:
            tests = self.tests.read(prompt.reference)
        except Unusable as error:
            return Verdict(status=Status.ERROR, reward=0.0, reason=f"the prompt's reference cannot be used: {error}"[:300])
        program = self.programs.find(prompt.text, completion.text)
        if program is None:
            return Verdict(
                status=Status.NO_ANSWER, reward=0.0, reason="no program in the completion", measures=_measures(0.0, "")
            )
        settings = (self.rung, self.allow_unsafe, tuple(self.packages))
        source = program.encode("utf-8", "surrogatepass")
        try:
            sandbox = sandbox_for(*settings)
            if isinstance(tests, CallTests):
                outcome = judge_calls(sandbox, source, tests, seconds=self.seconds, limits=self.limits)
            else:
                outcome = judge_inputs(sandbox, source, tests, seconds=self.seconds, limits=self.limits)
        except (RunError, OSError) as error:
            forget(*settings)
            return Verdict(status=Status.ERROR, reward=0.0, reason=f"the sandbox failed: {type(error).__name__}: {error}"[:300])
        return self._verdict(outcome, program)

    def reference_fields(self) -> frozenset[str]:
        """Those of the format."""
        return self.tests.fields()

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """Tests that cannot be read or do not compile."""
        try:
            self.tests.read(reference)
        except Unusable as error:
            return str(error)
        return None

    def check(self) -> Sequence[str]:
        """Open the ladder, run the sandbox's self-test, and say what it guarantees. Raises `ConfigError`."""
        from delta_lightning.sandbox import self_test

        for folder in self.packages:
            require(Path(folder).expanduser().is_dir(), "packages", wanted="a folder", got=folder, remedy="Check the path.")
        return self_test(rung=self.rung, allow_unsafe=self.allow_unsafe).lines

    def limit_seconds(self) -> float:
        """See the seam."""
        return self.seconds + _MARGIN

    def warm_up(self) -> None:
        """Open the sandbox, outside any time limit."""
        sandbox_for(self.rung, self.allow_unsafe, tuple(self.packages))

    def examples(self) -> tuple[Example, ...]:
        """For the laws: a right program, a wrong one and none, in the form that `programs` reads."""
        reference = self.tests.example()
        if not reference:
            return ()
        none = Example(reference=reference, text="", status=Status.NO_ANSWER)
        right, wrong = _PROGRAMS[isinstance(self.tests.read(reference), CallTests)]
        for form in ("{}", "```python\n{}```\n", "</think>{}", "</think>\n```python\n{}```\n"):
            if self.programs.find("?", form.format(right)) == right:
                return (
                    Example(reference=reference, text=form.format(right), status=Status.CORRECT),
                    Example(reference=reference, text=form.format(wrong), status=Status.INCORRECT),
                    none,
                )
        return (none,)

    def _verdict(self, outcome: Outcome, program: str) -> Verdict:
        share = outcome.passed / outcome.total
        whole = float(outcome.status is Status.CORRECT)
        reward = whole if self.reward == "all" else share
        if outcome.status is Status.ERROR:
            return Verdict(status=Status.ERROR, reward=0.0, reason=outcome.reason)
        return Verdict(status=outcome.status, reward=reward, reason=outcome.reason, measures=_measures(share, program))


def _measures(share: float, program: str) -> Mapping[str, float]:
    return {"passed_share": share, "suspicious": float(suspicious(program))}
