r"""Mathematics: the last boxed answer against the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Status, Verdict
from delta_lightning.verifiers.boxed import after_thinking, last_boxed
from delta_lightning.verifiers.numerals import numeral, same_number
from delta_lightning.verifiers.symbolic import parses, same_meaning, warm_up
from delta_lightning.verifiers.tidy import squeezed, tidy
from delta_lightning.verifiers.words import is_words, same_words, words


@dataclass(frozen=True, kw_only=True)
class MathVerifier(Verifier):
    r"""1 where the last balanced `\boxed{...}` equals the reference answer, else 0 (the reward of DAPO and DelTA).

    The comparison goes in stages, cheap and exact ones first: the same string after normalisation; integers, fractions and
    decimals as exact rationals; words and choice letters as strings; then math-verify, behind guard rails for its known
    false positives. The stages before the last neither import it nor evaluate anything; nothing ever evaluates the
    model's text as code.

    A decimal equals a number that it cannot write out (1/3, the square root of 2) when it agrees to 6 places. Units may be
    left out, but two different units are wrong; so are a percent sign or a base that the reference does not have.

    Statuses: CORRECT; INCORRECT, also for an answer that does not parse; NO_ANSWER without a balanced box; ERROR, which is no
    reward, when the reference cannot be used or the comparison itself fails. It has no time limit of its own: run it in a
    `VerifierPool`.

    Args:
        after_think: look only behind the last `</think>`; a completion without that tag then has no answer.
        max_answer_chars: longer answers are INCORRECT unread, and longer references are refused; characters, at least 1.
    """

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
        gold = _reference(prompt.reference)
        if gold is None or len(gold) > self.max_answer_chars:
            return Verdict(status=Status.ERROR, reward=0.0, reason="the prompt has no usable reference 'answer'")
        text = after_thinking(completion.text) if self.after_think else completion.text
        answer = last_boxed(text) if text is not None else None
        if answer is None or not answer.strip():
            return Verdict(status=Status.NO_ANSWER, reward=0.0, reason="no balanced \\boxed{} with an answer in it")
        if len(answer) > self.max_answer_chars:
            return _incorrect(f"the answer has {len(answer)} characters, more than {self.max_answer_chars}")
        try:
            same = same_answer(gold, answer)
        except Exception as error:  # noqa: BLE001 -- reported as the status and its reason
            return Verdict(status=Status.ERROR, reward=0.0, reason=f"comparison failed: {type(error).__name__}: {error}"[:300])
        if same is None:
            return Verdict(status=Status.ERROR, reward=0.0, reason=f"the reference cannot be parsed: {gold[:100]!r}")
        return Verdict(status=Status.CORRECT, reward=1.0) if same else _incorrect(f"{answer[:80]!r} is not {gold[:80]!r}")

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """See the seam. Plain numbers and words are accepted without importing math-verify."""
        if "answer" not in reference:
            return "no 'answer'"
        gold = _reference(reference)
        if gold is None:
            return f"the answer is empty or not a text or number: {reference['answer']!r}"
        if len(gold) > self.max_answer_chars:
            return f"the answer has {len(gold)} characters, more than max_answer_chars={self.max_answer_chars}"
        wanted = tidy(gold)
        if numeral(wanted) or is_words(wanted) or parses(wanted):
            return None
        return f"the answer does not parse as mathematics: {gold[:100]!r}"

    def warm_up(self) -> None:
        """Import math-verify and parse once, so that no answer's time limit pays for it."""
        warm_up()


def same_answer(gold: str, answer: str) -> bool | None:
    """Whether `answer` equals `gold`, both as written in a box; None where the reference cannot be parsed.

    Not symmetric: the reference's form rules (a unit, a percent sign or an equation that it has is known to be wanted).
    """
    wanted, got = tidy(gold), tidy(answer)
    if not wanted:
        return None
    if squeezed(wanted) == squeezed(got):
        return True
    wanted_number, got_number = numeral(wanted), numeral(got)
    if wanted_number and got_number:
        return same_number(wanted_number, got_number)
    if wanted_number and words(got) is not None:
        return False
    as_words = same_words(wanted, got)
    if as_words is not None:
        return as_words
    if not wanted_number and not parses(wanted):
        return None
    return same_meaning(wanted, got)


def _reference(reference: Mapping[str, Any]) -> str | None:
    """The reference answer as text, out of its box if it has one; None where there is none."""
    answer = reference.get("answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return None
    text = str(answer).strip()
    boxed = last_boxed(text)
    return (text if boxed is None else boxed.strip()) or None


def _incorrect(reason: str) -> Verdict:
    return Verdict(status=Status.INCORRECT, reward=0.0, reason=reason)
