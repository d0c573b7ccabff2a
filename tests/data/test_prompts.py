from __future__ import annotations

import pytest

from delta_lightning.data.prompts import BATCH, Templates, check_template, make_prompts, render
from delta_lightning.errors import ConfigError
from delta_lightning.types import Problem


class Letters:
    """One token per character; refuses special tokens."""

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        self.largest = max(getattr(self, "largest", 0), len(texts))
        return {"input_ids": [[ord(char) for char in text] for text in texts]}


def problem(name: str, question: str) -> Problem:
    return Problem(id=name, question=question, reference={"answer": "1"}, source="toy")


def test_braces_in_question_and_template_stay() -> None:
    assert render(r"Q: {question} \boxed{}", r"\frac{1}{2} of {0}") == r"Q: \frac{1}{2} of {0} \boxed{}"


def test_prompts_carry_everything_over() -> None:
    prompts = make_prompts([problem("a", "xy"), problem("b", "z")], Letters(), "<{question}>", 10)
    assert [(prompt.id, prompt.text, prompt.source) for prompt in prompts] == [("a", "<xy>", "toy"), ("b", "<z>", "toy")]
    assert prompts[0].token_ids == tuple(map(ord, "<xy>"))
    assert prompts[0].reference == {"answer": "1"}


def test_long_prompts_are_counted_and_named() -> None:
    problems = [problem(f"p{length}", "x" * length) for length in range(1, 21)]
    assert len(make_prompts(problems, Letters(), "{question}", 20)) == 20
    with pytest.raises(ConfigError) as caught:
        make_prompts(problems, Letters(), "{question}", 12)
    text = str(caught.value)
    assert "8 of 20" in text and "p13 (13)" in text and "p17 (17)" in text and "p18" not in text and "Raise it to 20" in text


def test_prompts_without_a_token_are_named() -> None:
    with pytest.raises(ConfigError, match=r"data\.template: wanted at least 1 token in every prompt, got .*none in \['b'\]"):
        make_prompts([problem("a", "x"), problem("b", "")], Letters(), "{question}", 9)


def test_tokenized_in_batches_with_progress() -> None:
    seen: list[tuple[int, int]] = []
    letters, total = Letters(), BATCH + 3
    prompts = make_prompts(
        [problem(str(i), str(i)) for i in range(total)], letters, "{question}", 9, lambda done, of: seen.append((done, of))
    )
    assert [prompt.text for prompt in prompts] == [str(i) for i in range(total)]
    assert letters.largest == BATCH
    assert seen == [(BATCH, total), (total, total)]


def test_template_without_a_place_is_refused() -> None:
    check_template("{question}")
    with pytest.raises(ConfigError, match="question"):
        check_template("Answer this: {Question}")


def test_templates_by_data_set() -> None:
    templates = Templates(default="<{question}>", by_source={"code": "def {question}"})
    other = Problem(id="b", question="y", reference={}, source="code")
    prompts = make_prompts([problem("a", "x"), other], Letters(), templates, 10)
    assert [prompt.text for prompt in prompts] == ["<x>", "def y"]
    templates.refuse_unknown(["toy", "code", "toy"])
    with pytest.raises(ConfigError, match=r"data.templates: wanted names among maths, toy, got 'code'"):
        templates.refuse_unknown(["toy", "maths"])


def test_a_data_sets_template_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.templates\.code"):
        Templates(by_source={"code": "write"})


def test_no_problems_no_prompts() -> None:
    assert make_prompts([], Letters(), "{question}", 9) == []
