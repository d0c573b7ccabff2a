from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.errors import ConfigError
from delta_lightning.types import Status
from delta_lightning.verifiers.mathematics import latex, symbolic
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from delta_lightning.verifiers.mathematics.staged import Staged
from support.verdicts import completion_of, prompt_with


@pytest.mark.parametrize("text", ["", "42", "\\boxed{42", "\\boxed{}", "\\boxed{  }", "the answer is 42"])
def test_no_box_is_no_answer(text: str) -> None:
    verdict = MathVerifier().score(prompt_with("42"), completion_of(text))
    assert (verdict.status, verdict.reward) == (Status.NO_ANSWER, 0.0)


def test_the_last_box_counts() -> None:
    text = "\\boxed{41}, no wait, \\boxed{42}"
    assert MathVerifier().score(prompt_with("42"), completion_of(text)).status is Status.CORRECT
    assert MathVerifier().score(prompt_with("41"), completion_of(text)).status is Status.INCORRECT


def test_thinking_is_cut_when_asked() -> None:
    inside = completion_of("<think>\\boxed{42}</think> I do not know")
    after = completion_of("<think>\\boxed{1}</think> \\boxed{42}")
    never_ends = completion_of("\\boxed{42}")
    strict = MathVerifier(after_think=True)
    assert MathVerifier().score(prompt_with("42"), inside).status is Status.CORRECT
    assert strict.score(prompt_with("42"), inside).status is Status.NO_ANSWER
    assert strict.score(prompt_with("42"), after).status is Status.CORRECT
    assert strict.score(prompt_with("42"), never_ends).status is Status.NO_ANSWER


def test_long_answers_are_wrong_unread() -> None:
    text = "\\boxed{" + "1" * 20 + "}"
    assert MathVerifier(max_answer_chars=20).score(prompt_with("1" * 20), completion_of(text)).status is Status.CORRECT
    assert MathVerifier(max_answer_chars=19).score(prompt_with("1"), completion_of(text)).status is Status.INCORRECT


def test_range_check() -> None:
    with pytest.raises(ConfigError, match="max_answer_chars"):
        MathVerifier(max_answer_chars=0)


@pytest.mark.parametrize(
    "answer", ["42", "\\frac{1}{2}", "1,234.5", "Yes", "\\text{(C)}", "x^2+1", "\\{1,2\\}", 7, 2.5, "\\boxed{3}"]
)
def test_usable_references(answer: object) -> None:
    assert MathVerifier().refuse_reference({"answer": answer}) is None


@pytest.mark.parametrize("answer", ["", "  ", "$$", None, True, ["42"], "\\boxed{}", "\\frac{", "a^{\\aleph_0}", "+" * 2000])
def test_refused_references_are_no_reward(answer: object) -> None:
    assert MathVerifier().refuse_reference({"answer": answer})
    verdict = MathVerifier().score(prompt_with(answer), completion_of("\\boxed{42}"))
    assert verdict.status is Status.ERROR


def test_missing_reference_is_refused() -> None:
    assert MathVerifier().reference_fields() == {"answer"}
    assert MathVerifier().refuse_reference({"solution": "42"}) == "no 'answer'"


def test_a_failing_comparison_is_an_error_not_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> bool:
        raise RuntimeError("library is broken")

    monkeypatch.setattr(symbolic, "_verify", lambda: broken)
    verdict = MathVerifier().score(prompt_with("(x+1)^2"), completion_of("\\boxed{x^2+2x+1}"))
    assert verdict.status is Status.ERROR
    assert "library is broken" in verdict.reason


def test_a_parser_that_parses_nothing_is_an_error_not_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation must not look like a model that is always wrong."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise AttributeError("library is broken")

    monkeypatch.setattr(latex, "_read", broken)
    verdict = MathVerifier().score(prompt_with("x+17y"), completion_of("\\boxed{x+18y}"))
    assert verdict.status is Status.ERROR


def test_runs_in_a_thread() -> None:
    """math-verify's own time limit is a signal, which fails in threads: it must be off."""
    found: list[Status] = []
    answer = completion_of("\\boxed{\\frac{3}{2\\sqrt{3}}}")
    thread = threading.Thread(
        target=lambda: found.append(MathVerifier().score(prompt_with("\\frac{\\sqrt{3}}{2}"), answer).status)
    )
    thread.start()
    thread.join()
    assert found == [Status.CORRECT]


def test_pickles() -> None:
    part = MathVerifier(after_think=True, max_answer_chars=7)
    assert pickle.loads(pickle.dumps(part)) == part


def test_imports_nothing_heavy() -> None:
    code = """if True:
        import sys
        from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
        part = MathVerifier()
        assert part.refuse_reference({"answer": "1,234"}) is None
        assert part.refuse_reference({"answer": "Yes"}) is None
        heavy = {"torch", "math_verify", "sympy", "latex2sympy2_extended", "lightning", "transformers", "numpy"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60), st.text(alphabet="0123456789+-*/^_{}()[]\\,.=<>xyie%$ ", max_size=20), st.binary(max_size=60)
    )
)
def test_any_text_gives_a_verdict_and_the_same_one_again(noise: str | bytes) -> None:
    text = noise if isinstance(noise, str) else noise.decode("latin-1")
    for completion in (completion_of(text), completion_of("\\boxed{" + text + "}")):
        first = MathVerifier().score(prompt_with("\\sqrt{5}"), completion)
        assert first == MathVerifier().score(prompt_with("\\sqrt{5}"), completion)
        assert first.reward == (1.0 if first.status is Status.CORRECT else 0.0)


def _golds(folder: Path) -> Iterator[str]:
    for name in ("train", "test"):
        for line in (folder / "gsm8k" / f"{name}.jsonl").read_text().splitlines():
            yield json.loads(line)["answer"].rpartition("#### ")[2]
    names = ("math500", "aime_*", "hmmt_*", "brumo_*", "deepmath_sample")
    for file in sorted(file for name in names for file in folder.glob(f"{name}/*.jsonl")):
        for line in file.read_text().splitlines():
            yield str(json.loads(line)["answer"])


@pytest.mark.data
def test_every_reference_equals_itself_boxed(delta_data: Path) -> None:
    part = MathVerifier()
    golds = list(_golds(delta_data))
    assert len(golds) > 9000
    wrong = [gold for gold in golds if part.score(prompt_with(gold), completion_of(f"\\boxed{{{gold}}}")).reward != 1.0]
    assert wrong == []
    refused = {gold for gold in golds if part.refuse_reference({"answer": gold})}
    assert refused == {"a^{\\aleph_0}"}  # math-verify knows no cardinals


@pytest.mark.slow
@pytest.mark.data
def test_different_references_are_different(delta_data: Path) -> None:
    import random

    golds = sorted(set(_golds(delta_data)))
    formulas = [gold for gold in golds if not gold.lstrip("-").replace(",", "").isdigit()]
    draw = random.Random(7)
    pairs = {tuple(draw.sample(formulas, 2)) for _ in range(600)} | {tuple(draw.sample(golds, 2)) for _ in range(4500)}
    equal = {(gold, answer) for gold, answer in pairs if Staged().same(gold, answer)}
    # Only spellings of the same number or of the same labelled value may meet: `1,200` and `1200`, `x=5` and `5`.
    bare = {(gold, answer): [text.rpartition("=")[2].replace(",", "") for text in (gold, answer)] for gold, answer in equal}
    assert all(left == right for left, right in bare.values()), equal


@pytest.mark.data
def test_labelled_solutions_of_gsm8k(delta_data: Path) -> None:
    """Labels by people's rule (the last `A:`), for 4 models x 1319 problems: no verdict differs."""
    part, total, different = MathVerifier(), 0, []
    for number, line in enumerate((delta_data / "gsm8k" / "example_model_solutions.jsonl").read_text().splitlines()):
        row = json.loads(line)
        gold = row["ground_truth"].rpartition("A: ")[2]
        for name, found in row.items():
            if name in ("question", "ground_truth"):
                continue
            answer = found["solution"].rpartition("A: ")[2] if "A: " in found["solution"] else ""
            verdict = part.score(prompt_with(gold), completion_of(f"\\boxed{{{answer}}}"))
            total += 1
            if (verdict.status is Status.CORRECT) != found["is_correct"]:
                different.append((number, name, gold, answer, verdict.status))
    assert total == 5276
    assert different == []


def test_an_answer_that_the_library_stumbles_over_is_wrong_and_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    from math_verify import verify

    def stumbles(gold: Any, target: Any, **settings: Any) -> bool:
        if gold == target:
            return verify(gold, target, **settings)
        raise KeyError("an odd form")

    monkeypatch.setattr(symbolic, "_verify", lambda: stumbles)
    verdict = MathVerifier().score(prompt_with("(x+1)^2"), completion_of("\\boxed{x^2+2x+1}"))
    assert verdict.status is Status.INCORRECT
    assert "KeyError: 'an odd form'" in verdict.reason
