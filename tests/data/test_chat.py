"""Prompts by chat templates: the tokenizer's own, a named one, a file; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delta_lightning.data import Chat
from delta_lightning.data.prompts import Templates, make_prompts
from delta_lightning.errors import ConfigError
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.types import Problem

MARKS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if thinking %}<think>{% endif %}{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system messages here') }}{% endif %}" + MARKS
FORGETS = "{{ messages[1].content }}"


def tokenizer(template: str | dict[str, str] | None = MARKS) -> Any:
    made = byte_tokenizer()
    made.chat_template = template
    return made


def test_the_prompt_is_what_the_tokenizers_own_template_makes() -> None:
    own = tokenizer()
    [prompt] = make_prompts([Problem(id="a", question="1+1?", reference={}, source="toy")], own, Chat(), 50)
    assert prompt.text == "<user>1+1?</user><assistant>"
    ids = own.apply_chat_template([{"role": "user", "content": "1+1?"}], add_generation_prompt=True, return_dict=False)
    assert list(prompt.token_ids) == ids


def test_messages_arguments_and_the_start_of_the_answer() -> None:
    chat = Chat(user="Solve {question} {x}", system=" Be brief. ", arguments={"thinking": True}, answer_start="\nHm")
    assert chat.text("1+1", tokenizer()) == "<system>Be brief.</system><user>Solve 1+1 {x}</user><assistant><think>\nHm"


def test_a_special_token_of_the_template_is_one_token() -> None:
    marked = tokenizer(MARKS.replace("<assistant>", "<|eos|>"))
    marked.split_special_tokens = False
    [prompt] = make_prompts([Problem(id="a", question="x", reference={}, source="toy")], marked, Chat(), 50)
    assert prompt.token_ids[-1] == marked.eos_token_id and prompt.token_ids.count(marked.eos_token_id) == 1


def test_templates_by_name_and_from_a_file(tmp_path: Path) -> None:
    named = tokenizer({"default": MARKS, "short": "{{ messages[0].content }}:"})
    assert Chat(chat_template="short").text("x", named) == "x:"
    assert Chat().text("x", named) == "<user>x</user><assistant>"
    file = tmp_path / "mine.jinja"
    file.write_text("[{{ messages[0].content }}]", encoding="utf-8")
    assert Chat(chat_template=str(file)).text("x", tokenizer(None)) == "[x]"


def test_one_run_with_raw_texts_and_conversations() -> None:
    templates = Templates(default="Q: {question}", by_source={"chat": Chat(), "code": "def {question}"})
    problems = [Problem(id=source, question="x", reference={}, source=source) for source in ("maths", "chat", "code")]
    prompts = make_prompts(problems, tokenizer(), templates, 50)
    assert [prompt.text for prompt in prompts] == ["Q: x", "<user>x</user><assistant>", "def x"]


@pytest.mark.parametrize(
    ("chat", "template", "said"),
    [
        (Chat(), None, r"wanted a tokenizer with a template, got one without.*\.jinja.*data\.template="),
        (Chat(chat_template="tools"), None, "wanted a tokenizer with a template, got 'tools'"),
        (
            Chat(chat_template="tools"),
            {"default": MARKS, "short": MARKS},
            r"one of the tokenizer's \(default, short\), got 'tools'",
        ),
        (Chat(), {"short": MARKS}, r"one of .*\(short\), got 'default'"),
        (Chat(chat_template="none/there.jinja"), MARKS, r"a file with a Jinja template, got none/there\.jinja: .*No such file"),
        (Chat(system="Be brief."), NO_SYSTEM, "no system messages here"),
        (Chat(system="Be brief."), FORGETS, "got a prompt without the system message"),
        (Chat(), "{{ messages", "a chat template that takes these messages"),
        (Chat(), "{{ 1 + 'a' }}", "takes these messages and arguments, got unsupported operand"),
        (Chat(arguments={"n": 0}), "{{ 1 // n }}", "takes these messages and arguments, got .*division"),
        (Chat(arguments={"documents": "x"}), MARKS, "takes these messages and arguments, got Documents should be a list"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(chat: Chat, template: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chat.text("1+1?", tokenizer(template))


def test_options_that_say_nothing_or_too_much_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Chat\.user.*\{question\}"):
        Chat(user="Solve")
    with pytest.raises(ConfigError, match=r"Chat\.arguments.*tokenize"):
        Chat(arguments={"tokenize": True})
    with pytest.raises(ConfigError, match=r"Chat\.arguments.*continue_final_message"):
        Chat(arguments={"continue_final_message": True})
