"""Problems made into prompts: the template rendered, the text tokenized, the length checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from delta_lightning.errors import ConfigError, require
from delta_lightning.types import Problem, Prompt

PLACE = "{question}"
BATCH = 1024  # texts tokenized at a time, so that progress shows
NAMED = 5  # offenders named in a message


class PromptTemplate(ABC):
    """Makes the text of a prompt of a question, where a text with `{question}` in it is not enough.

    Laws: a pure function of the question and the tokenizer; the question is in the text.
    """

    @abstractmethod
    def text(self, question: str, tokenizer: Any) -> str:
        """The prompt, to be tokenized as it stands. Raises `ConfigError` for a tokenizer or question that it cannot use."""


@dataclass(frozen=True, kw_only=True)
class Templates:
    """The text around a question, for each data set.

    Args:
        default: in a text, `{question}` is replaced by the question. by_source: data set -> template, instead of the default.

    Raises:
        ConfigError: a text without a place for the question.
    """

    default: PromptTemplate | str = PLACE
    by_source: Mapping[str, PromptTemplate | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = {"data.template": self.default} | {f"data.templates.{name}": text for name, text in self.by_source.items()}
        for setting, template in named.items():
            if isinstance(template, str):
                check_template(template, setting)

    def text(self, problem: Problem, tokenizer: Any) -> str:
        """The prompt's text. Raises `ConfigError` where the template cannot make one."""
        template = self.by_source.get(problem.source, self.default)
        return render(template, problem.question) if isinstance(template, str) else template.text(problem.question, tokenizer)

    def refuse_unknown(self, sources: Sequence[str]) -> None:
        """Refuse a template for a data set that has no problem. Raises `ConfigError`."""
        unknown = sorted(set(self.by_source) - set(sources))
        require(not unknown, "data.templates", wanted=f"names among {', '.join(sorted(set(sources)))}", got=", ".join(unknown),
                remedy="A template belongs to a data set by its name.")  # fmt: skip


def check_template(template: str, setting: str = "template") -> None:
    """Refuse a template that has no place for the question. Raises `ConfigError`."""
    require(
        PLACE in template,
        setting,
        wanted=f"a text with {PLACE}",
        got=template,
        remedy=f"Put {PLACE} where the question goes.",
    )


def render(template: str, question: str) -> str:
    """The template with the question in its place; other braces in either stay as they are."""
    return template.replace(PLACE, question)


def make_prompts(
    problems: Sequence[Problem],
    tokenizer: Any,
    template: PromptTemplate | str | Templates,
    max_prompt_tokens: int,
    tick: Callable[[int, int], None] | None = None,
) -> list[Prompt]:
    """One prompt per problem, tokenized without special tokens.

    Args:
        problems: in the order of the result. tokenizer: a `transformers` tokenizer.
        template: one for all, or `Templates` with one for each data set. max_prompt_tokens: longest prompt allowed.
        tick: called as (done, total) after each batch.

    Raises:
        ConfigError: a template that cannot be used, or prompts that are empty or too long (how many, and the first of them).
    """
    templates = template if isinstance(template, Templates) else Templates(default=template)
    prompts: list[Prompt] = []
    for start in range(0, len(problems), BATCH):
        part = problems[start : start + BATCH]
        texts = [templates.text(problem, tokenizer) for problem in part]
        encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
        prompts += [
            Prompt(id=problem.id, text=text, token_ids=tuple(ids), source=problem.source, reference=problem.reference)
            for problem, text, ids in zip(part, texts, encoded, strict=True)
        ]
        empty = [prompt.id for prompt in prompts if not prompt.token_ids]
        require(not empty, "data.template", wanted="at least 1 token in every prompt", got=f"none in {empty[:NAMED]}",
                remedy="Put some text around {question}, or mend the tokenizer.")  # fmt: skip
        if tick is not None:
            tick(len(prompts), len(problems))
    refuse_long(prompts, max_prompt_tokens)
    return prompts


def refuse_long(prompts: Sequence[Prompt], limit: int) -> None:
    """Refuses prompts of more than `limit` tokens, with their number and the first of them. Raises `ConfigError`."""
    long = [prompt for prompt in prompts if len(prompt.token_ids) > limit]
    if not long:
        return
    longest = max(len(prompt.token_ids) for prompt in long)
    named = ", ".join(f"{prompt.id} ({len(prompt.token_ids)})" for prompt in long[:NAMED])
    more = ", ..." if len(long) > NAMED else ""
    raise ConfigError(
        "data.max_prompt_tokens",
        wanted=f"prompts of at most {limit} tokens",
        got=f"{len(long)} of {len(prompts)} prompts that are longer: {named}{more}",
        remedy=f"Raise it to {longest}, or remove these problems.",
    )
