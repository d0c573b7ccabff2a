"""Prompts as a conversation, written by a chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from delta_lightning.data.prompts import PLACE, PromptTemplate, check_template, render
from delta_lightning.errors import ConfigError, require

ENDING = ".jinja"
OWN = {"conversation", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message", "messages"}
# A template is a program: what it does with the messages and the arguments may fail like any other.
FAILURES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Chat(PromptTemplate):
    """The question as a user's message, in the words and marks of a chat template.

    The text ends where the assistant's answer begins. It is tokenized as it stands, so that marks such as <|im_start|> become
    the tokens that they name and nothing is added to them.

    Args:
        user: the user's message; `{question}` in it is replaced by the question.
        system: a message before it; None without one (a template may bring its own).
        chat_template: name of one of the tokenizer's templates, or a file that ends in .jinja; None takes the tokenizer's own.
        answer_start: text with which every answer begins, such as "<think>\\n"; it belongs to the prompt.
        arguments: what else the template reads, for example `{enable_thinking: false}`.

    Raises:
        ConfigError: a user's message without a place for the question.
    """

    user: str = PLACE
    system: str | None = None
    chat_template: str | None = None
    answer_start: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_template(self.user, "Chat.user")
        own = OWN & self.arguments.keys()
        require(not own, "Chat.arguments", wanted="names that are the template's own", got=", ".join(sorted(own)),
                remedy="Leave them out: Chat gives them.")  # fmt: skip

    def text(self, question: str, tokenizer: Any) -> str:
        """The prompt. Raises `ConfigError`: no such template, one that refuses these messages, or that leaves one out."""
        from jinja2 import TemplateError

        messages = [{"role": "user", "content": render(self.user, question)}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        template = self._template(tokenizer)
        try:
            text: str = tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=True, **self.arguments
            )
        except (TemplateError, *FAILURES) as error:
            raise ConfigError(
                "Chat", wanted="a chat template that takes these messages and arguments", got=str(error),
                remedy="Leave out what it refuses (a system message?), or name another template.",
            ) from error  # fmt: skip
        left_out = [message["role"] for message in messages if message["content"].strip() not in text]
        if left_out:
            raise ConfigError(
                "Chat", wanted="a chat template that writes every message", got=f"a prompt without the {left_out[0]} message",
                remedy="Name another template, or leave that message out.",
            )  # fmt: skip
        return text + self.answer_start

    def _template(self, tokenizer: Any) -> str | None:
        """What `apply_chat_template` takes: the text of a file, or the tokenizer's template by that name."""
        if self.chat_template is not None and self.chat_template.endswith(ENDING):
            path = Path(self.chat_template).expanduser()
            try:
                return path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError("Chat.chat_template", wanted="a file with a Jinja template", got=f"{path}: {error}",
                                  remedy="Check the path.") from error  # fmt: skip
        there = tokenizer.chat_template
        named = there if isinstance(there, dict) else {} if there is None else {"default": there}
        wanted = "default" if self.chat_template is None else self.chat_template
        if wanted not in named:
            raise ConfigError(
                "Chat.chat_template",
                wanted=f"one of the tokenizer's ({', '.join(sorted(named))})" if named else "a tokenizer with a template",
                got=repr(wanted) if named or self.chat_template else "one without",
                remedy=f"Name a file that ends in {ENDING}, or write the prompt as a text: data.template='...{PLACE}...'.",
            )
        return str(named[wanted])
