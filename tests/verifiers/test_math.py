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
from delta_lightning.verifiers.boxed import last_boxed
from delta_lightning.verifiers.math import MathVerifier, same_answer
from support.verdicts import completion_of, prompt_with

# (reference, answer, equal), decided by hand.
SAME_STRING_OR_NUMBER = [
    ("42", "42", True),
    ("42", " 42. ", True),
    ("42", "$42$", True),
    ("42", "43", False),
    ("42", "-42", False),
    ("42", "42.0", True),
    ("042", "42", True),
    ("73", "073", True),
    ("7425000", "7,425,000", True),
    ("10000", "10{,}000", True),
    ("11,\\! 111,\\! 111,\\! 100", "11111111100", True),
    ("1000", "1 000", True),
    ("42", "4\\,2", True),
    ("32349", "32, 349", False),  # a list of two
    ("12", "1,2", False),
    ("12", "1 2", False),
    ("58,500", "58500", True),
    ("\\$32,\\!348", "32348", True),
    ("18.90", "\\$18.9", True),
    (".35625", "0.35625", True),
    ("1.25", "\\frac{5}{4}", True),
    ("\\frac43", "4/3", True),
    ("\\dfrac{17}{50}", "0.34", True),
    ("\\frac 59", "\\tfrac{10}{18}", True),
    ("-\\frac{35}{9}", "\\frac{-35}{9}", True),
    ("-\\frac{35}{9}", "\\frac{35}{9}", False),
    ("1\\frac{4}{5}", "\\frac{9}{5}", True),
    ("137 \\frac{1}{2}", "137.5", True),
    ("1 1/2", "1.5", True),
    ("11/2", "1 1/2", False),
    ("\\frac{1}{3}", "0.333333", True),
    ("\\frac{1}{3}", "0.3333", False),  # six places are wanted
    ("\\frac{1}{3}", "0.33", False),
    ("\\frac{1}{8}", "0.1250001", False),  # a decimal can write it out, so it must
    ("42", "42.0000001", False),
    ("3 \\times 10^{5}", "300000", True),
    ("123456789012345678901234567890", "123456789012345678901234567891", False),
    ("0", "-0", True),
    ("5", "\\frac{5}{0}", False),
]
GUARDED = [
    ("42", "41=42", False),
    ("42", "41=43=42", False),
    ("42", "5x-7y+11z+4=42", False),
    ("0", "5x-7y+11z+4=0", False),
    ("42", "x=42", True),
    ("42", "f(x) = 42", True),
    ("42", "x = 40 + 2 = 42", True),
    ("42", "y = 43, x = 42", False),
    ("42", "40 + 2 = 42", True),  # every link equals the reference
    ("42", "x \\approx 42", True),
    ("\\frac{1}{3}", "x = \\frac{1}{3} \\approx 1.3", True),
    ("42", "42\\%", False),
    ("42", "4200\\%", False),
    ("28\\%", "28 \\text{ percent}", True),
    ("28\\%", "28", True),
    ("50\\%", "0.5", True),
    ("50\\%", "\\frac{1}{2}", True),
    ("50\\%", "5", False),
    ("42", "[42,42]", False),
    ("42", "(42, 42)", False),
    ("42", "\\{42\\}", True),
    ("42", "42_{7}", False),
    ("52_8", "52_{8}", True),
    ("52_8", "52", True),
    ("52_8", "52_7", False),
    ("52_8", "42", False),
    ("42", "The answer is not 42", False),
    ("42", "\\text{not } 42", False),
    ("42", "42 \\text{ is wrong}", False),
    ("42", "42 \\text{ or } 43", False),
    ("\\frac{1}{2004!}", "\\frac{1}{2006!}", False),
    ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}", False),
    ("2^{-99}", "\\frac{1}{2^{99}}", True),
    ("0", "\\frac{1}{2^{99}}", False),
    ("\\frac{1}{2^{99}}", "0", False),
    ("0", "\\sqrt{2}^2 - 2", True),
    ("2^{100}", "2^{100} + 1", False),
    ("5 \\text{ cm}", "5 \\text{ m}", False),
    ("5 \\text{ cm}", "5\\,\\mathrm{cm}", True),
    ("5 \\text{ cm}", "5", True),
    ("5", "5 \\text{ cm}", True),
    ("5 cm", "5 m", False),
    ("5 \\text{ centimeters}", "5 cm", True),
    ("15\\mbox{ cm}^2", "15 \\text{ cm}^2", True),
    ("15\\mbox{ cm}^2", "15", True),
    ("125 miles", "125\\textnormal{ miles}", True),
    ("2\\sqrt{3}\\text{ cm}", "2\\sqrt{3} \\text{ m}", False),
    ("2\\sqrt{3}\\text{ cm}", "\\sqrt{12}", True),
    ("90^\\circ", "90", True),
    ("90^\\circ", "90 \\text{ degrees}", True),
    ("90^\\circ", "90 \\text{ radians}", False),
    ("2h", "2", False),  # a letter is not a unit
    ("6", "6m", False),
    ("1-\\frac{1}{\\mathrm{e}}", "1+\\frac{1}{\\mathrm{e}}", False),
    ("1,2,\\ldots,n", "1,3,5,\\ldots,2n-1", False),
    ("1,2,\\ldots,n", "1, 2, \\dots, n", True),
    ("12:00", "1:00", False),
    ("12:00", "12:00", True),
]
WORDS = [
    ("Yes", "Yes", True),
    ("Yes", "\\text{yes}", True),
    ("Yes", "Yse", False),
    ("No", "On", False),
    ("No", "\\textbf{No}.", True),
    ("No", "\\text{No, it is not}", True),
    ("No", "\\text{Not}", False),
    ("No", "Yes", False),
    ("True", "1", False),
    ("\\text{Evelyn}", "Evelyn", True),
    ("\\text{Evelyn}", "Evelny", False),
    ("\\text{even}", "\\text{Even}", True),
    ("\\text{ellipse}", "an ellipse", True),
    ("\\text{(C)}", "C", True),
    ("\\text{(C)}", "\\text{c}", True),
    ("C", "(C)", True),
    ("\\text{(C)}", "\\text{(D)}", False),
    ("D", "\\text{E}", False),
    ("ii", "(ii)", True),
    ("ii", "i", False),
    ("x", "y", False),
    ("xy", "yx", True),  # a product
    ("12", "twelve", False),
    ("e", "2.718282", True),  # one letter may be a constant
]
FORMULAS = [
    ("\\frac{\\sqrt{3}}{2}", "\\frac{3}{2\\sqrt{3}}", True),
    ("\\frac{\\sqrt{3}}{2}", "0.866025", True),
    ("\\sqrt{2}", "1.4142", False),
    ("11\\sqrt2", "\\sqrt{242}", True),
    ("6 - 5i", "-5i + 6", True),
    ("6 - 5i", "6 + 5i", False),
    ("i", "\\sqrt{-1}", True),
    ("2\\pi i e", "2\\pi e i", True),
    ("x^3+3x-6", "x^3 - 6 + 3x", True),
    ("(a+5)(b+2)", "ab+2a+5b+10", True),
    ("y = 2x + 3", "2x+3", True),
    ("x=5", "5", True),
    ("x=5", "y=5", False),
    ("5x - 7y + 11z + 4 = 0", "-5x + 7y - 11z - 4 = 0", True),
    ("5x - 7y + 11z + 4 = 0", "0", False),
    ("(3,4]", "[3,4)", False),
    ("(3,4]", "\\left( 3, 4 \\right]", True),
    ("[0,1]", "0 \\le x \\le 1", True),
    ("x \\in [-2,7]", "-2 \\leq x \\leq 7", True),
    ("(0,9) \\cup (9,36)", "(0,36)", False),
    ("1,-2", "-2, 1", True),
    ("1,-2", "1, 2", False),
    ("1 \\pm \\sqrt{19}", "1+\\sqrt{19}, 1-\\sqrt{19}", True),
    ("\\pm 2021", "2021", False),
    ("\\begin{pmatrix} -7 \\\\ 16 \\\\ 5 \\end{pmatrix}", "\\begin{bmatrix} -7 \\\\ 16 \\\\ 5 \\end{bmatrix}", True),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "(1, 2)", True),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "(2, 1)", False),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} 2 \\\\ 1 \\end{pmatrix}", False),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "3", False),
    ("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 4 & 3 \\end{pmatrix}", False),
    ("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\begin{bmatrix} 1 & 4/2 \\\\ 3 & 4 \\end{bmatrix}", True),
    ("\\varnothing", "\\emptyset", True),
    ("\\mathbb{R}", "(-\\infty, \\infty)", True),
    ("x \\neq 3", "x \\ne 3", True),
    ("x \\neq 3", "x \\ne 4", False),
    ("x \\neq 3", "x = 3", False),
    ("\\frac{sqrt{7} + 1}{2}", "\\frac{1+\\sqrt{7}}{2}", True),
    ("3^{2025}", "3^{2025}+1", False),
]


@pytest.mark.parametrize(("gold", "answer", "equal"), SAME_STRING_OR_NUMBER + GUARDED + WORDS + FORMULAS)
def test_decided_by_hand(gold: str, answer: str, equal: bool) -> None:
    verdict = MathVerifier().score(prompt_with(gold), completion_of(f"so it is \\boxed{{{answer}}}."))
    assert (verdict.status, verdict.reward) == ((Status.CORRECT, 1.0) if equal else (Status.INCORRECT, 0.0)), verdict.reason


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
    import math_verify

    def broken(*args: Any, **kwargs: Any) -> bool:
        raise RuntimeError("library is broken")

    monkeypatch.setattr(math_verify, "verify", broken)
    verdict = MathVerifier().score(prompt_with("x+1"), completion_of("\\boxed{x+2}"))
    assert verdict.status is Status.ERROR
    assert "library is broken" in verdict.reason


def test_a_parser_that_parses_nothing_is_an_error_not_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation must not look like a model that is always wrong."""
    import math_verify

    monkeypatch.setattr(math_verify, "parse", lambda *args, **kwargs: [])
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
        from delta_lightning.verifiers.math import MathVerifier
        part = MathVerifier()
        assert part.refuse_reference({"answer": "1,234"}) is None
        assert part.refuse_reference({"answer": "Yes"}) is None
        heavy = {"torch", "math_verify", "sympy", "latex2sympy2_extended", "lightning", "transformers", "numpy"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


PAYLOADS = [
    "__import__('os').system('touch {}')",
    "open('{}','w').write('\\pi 1')",
    "[open('{}','w')]",
    "eval(\"open('{}','w')\")",
    "\\text{{__import__('os').system('touch {}')}}",
    "exec(\"import os; os.system('touch {}')\")",
    "().__class__.__bases__[0].__subclasses__()",
    "\\operatorname{{open}}('{}','w')",
    "x = open('{}', 'w')",
    "\\pi + open('{}','w').write('1')",
    "lambda: open('{}','w')",
    "\\frac{{open('{}','w')}}{{2}}",
]


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("gold", ["42", "\\pi", "x^2+1", "\\{1,2\\}"])
def test_model_text_is_never_evaluated(payload: str, gold: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sympy.parsing.sympy_parser

    marker = tmp_path / "executed"
    text = payload.replace("{}", str(marker)).replace("{{", "{").replace("}}", "}")

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the answer reached an evaluator")

    monkeypatch.setattr(sympy.parsing.sympy_parser, "eval_expr", refuse)
    verdict = MathVerifier().score(prompt_with(gold), completion_of("\\boxed{" + text + "}"))
    assert verdict.status is not Status.CORRECT
    assert "evaluator" not in verdict.reason
    assert not marker.exists()


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
    equal = {(gold, answer) for gold, answer in pairs if same_answer(gold, answer)}
    # Only spellings of the same number or of the same labelled value may meet: `1,200` and `1200`, `x=5` and `5`.
    bare = {(gold, answer): [text.rpartition("=")[2].replace(",", "") for text in (gold, answer)] for gold, answer in equal}
    assert all(left == right for left, right in bare.values()), equal


@pytest.mark.data
def test_cases_of_the_math_verify_suite(delta_data: Path) -> None:
    """Bare answers are boxed, texts stay as they are. Most of the rest need an answer outside a box, or several boxes."""
    cases = [json.loads(line) for line in (delta_data / "math_verify_cases.jsonl").read_text().splitlines()]
    agree, verdicts = 0, {}
    for case in cases:
        text = case["pred"] if last_boxed(case["pred"]) is not None else f"\\boxed{{{case['pred']}}}"
        verdicts[case["id"]] = MathVerifier().score(prompt_with(case["gold"]), completion_of(text)).status
        agree += (verdicts[case["id"]] is Status.CORRECT) == case["expected"]
    assert verdicts["math_verify-264"] is Status.INCORRECT  # 1 - 1/e is not 1 + 1/e, whatever the suite expects
    accepted = [case["id"] for case in cases if not case["expected"] and verdicts[case["id"]] is Status.CORRECT]
    assert accepted == ["math_verify-188"]  # an interval against the same interval written as a chain
    assert agree >= 199


@pytest.mark.data
def test_labelled_solutions_of_gsm8k(delta_data: Path) -> None:
    """Labels by people's rule (the last `A:`), for 4 models x 1319 problems."""
    part, total, agree = MathVerifier(), 0, 0
    for line in (delta_data / "gsm8k" / "example_model_solutions.jsonl").read_text().splitlines():
        row = json.loads(line)
        gold = row["ground_truth"].rpartition("A: ")[2]
        for name, found in row.items():
            if name in ("question", "ground_truth"):
                continue
            answer = found["solution"].rpartition("A: ")[2] if "A: " in found["solution"] else ""
            verdict = part.score(prompt_with(gold), completion_of(f"\\boxed{{{answer}}}"))
            total += 1
            agree += (verdict.status is Status.CORRECT) == found["is_correct"]
    assert total == 5276
    assert agree >= 5269
