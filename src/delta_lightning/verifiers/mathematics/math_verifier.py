r"""Mathematics: the last boxed answer against the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Example, Prompt, Status, Verdict
from delta_lightning.verifiers.extraction.boxed import after_thinking
from delta_lightning.verifiers.extraction.extraction import Extraction, LastBox
from delta_lightning.verifiers.mathematics.comparison import Comparison, OddFormError, TooHardError
from delta_lightning.verifiers.mathematics.staged import Staged


@dataclass(frozen=True, kw_only=True)
class MathVerifier(Verifier):
    r"""1 where the answer equals the reference, else 0 (the reward of DAPO and DelTA).

    Which part of the completion is the answer is the business of `extraction`, by default the last balanced `\boxed{...}`
    and nothing else. When two answers are the same is the business of `comparison`, by default in stages: the same string
    after normalisation; integers, fractions and decimals as exact rationals; words and choice letters as strings; then
    math-verify, behind guard rails for its known false positives. Nothing ever evaluates the model's text as code. Examples of
    every rule are in docs/mathematics.md.

    Statuses: CORRECT; INCORRECT, also for an answer that does not parse; NO_ANSWER where the extraction finds none; TIMEOUT
    where the comparison refuses to start on an answer that would explode; ERROR, which is no reward, when the reference
    cannot be used or the comparison itself fails. It has no time limit of its own: run it in a `VerifierPool`.

    Args:
        extraction: where the answer stands: LastBox (default), Anywhere, PaperBox.
        comparison: when it is the reference: Staged (default), PaperGrader.
        after_think: look only behind the last `</think>`; a completion without that tag then has no answer.
        max_answer_chars: longer answers are INCORRECT unread, and longer references are refused; characters, at least 1.
    """

    extraction: Extraction = LastBox()  # noqa: RUF009 -- immutable
    comparison: Comparison = Staged()  # noqa: RUF009 -- immutable
    after_think: bool = False
    max_answer_chars: int = 1024

    def __post_init__(self) -> None:
        require(
            self.max_answer_chars >= 1,
            "max_answer_chars",
            wanted="at least 1 character",
            got=self.max_answer_chars,
            remedy="Leave it at 1024 unless references are longer.",
        )

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        try:
            return self._verdict(prompt.reference, completion.text)
        except TooHardError as reason:
            return Verdict(status=Status.TIMEOUT, reward=0.0, reason=f"not compared: {reason}")
        except OddFormError as reason:
            return _incorrect(f"math-verify cannot compare this form with the reference: {reason}"[:300])
        except RecursionError:
            return Verdict(status=Status.TIMEOUT, reward=0.0, reason="not compared: nested too deep")
        except Exception as error:  # noqa: BLE001 -- reported as the status and its reason
            return Verdict(status=Status.ERROR, reward=0.0, reason=f"comparison failed: {type(error).__name__}: {error}"[:300])

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """See the seam. Plain numbers and words are accepted without importing math-verify."""
        if "answer" not in reference:
            return "no 'answer'"
        gold = self._gold(reference["answer"])
        if gold is None:
            return f"the answer is empty or not a text or number: {reference['answer']!r}"
        if len(gold) > self.max_answer_chars:
            return f"the answer has {len(gold)} characters, more than max_answer_chars={self.max_answer_chars}"
        return None if self.comparison.usable(gold) else f"the answer does not parse as mathematics: {gold[:100]!r}"

    def warm_up(self) -> None:
        """Import math-verify and parse once, so that no answer's time limit pays for it."""
        self.comparison.warm_up()

    def examples(self) -> tuple[Example, ...]:
        """For the laws."""
        reference = {"answer": "42"}
        empty = Example(reference=reference, text="", status=Status.NO_ANSWER)
        if self.extraction.answer(r"\boxed{7}", self._usable) != "7" or self.max_answer_chars < 2:
            return (empty,)
        return (
            Example(reference=reference, text=r"<think></think> \boxed{42}", status=Status.CORRECT),
            Example(reference=reference, text=r"<think></think> \boxed{43}", status=Status.INCORRECT),
            empty,
        )

    def _verdict(self, reference: Mapping[str, Any], text: str) -> Verdict:
        gold = self._gold(reference.get("answer"))
        if gold is None or len(gold) > self.max_answer_chars:
            return Verdict(status=Status.ERROR, reward=0.0, reason="the prompt has no usable reference 'answer'")
        rest = after_thinking(text) if self.after_think else text
        answer = self.extraction.answer(rest, self._usable) if rest is not None else None
        if answer is None or not answer.strip():
            return Verdict(status=Status.NO_ANSWER, reward=0.0, reason=f"{type(self.extraction).__name__} finds no answer")
        if len(answer) > self.max_answer_chars:
            return _incorrect(f"the answer has {len(answer)} characters, more than {self.max_answer_chars}")
        same = self.comparison.same(gold, answer)
        if same is None:
            return Verdict(status=Status.ERROR, reward=0.0, reason=f"the reference cannot be parsed: {gold[:100]!r}")
        return Verdict(status=Status.CORRECT, reward=1.0) if same else _incorrect(f"{answer[:80]!r} is not {gold[:80]!r}")

    def _gold(self, answer: object) -> str | None:
        """The reference answer as text; None where there is none."""
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            return None
        return self.extraction.reference(str(answer).strip(), self._usable) or None

    def _usable(self, text: str) -> bool:
        return len(text) <= self.max_answer_chars and self.comparison.usable(text)


def _incorrect(reason: str) -> Verdict:
    return Verdict(status=Status.INCORRECT, reward=0.0, reason=reason)
