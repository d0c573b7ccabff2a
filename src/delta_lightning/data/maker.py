"""Problems made into prompts: filtered, their references checked, tokenized; all at once, or as they are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from delta_lightning.data.on_demand import OnDemand
from delta_lightning.data.prompts import Templates, make_prompts
from delta_lightning.data.references import check_references
from delta_lightning.errors import ConfigError, RunError
from delta_lightning.interfaces import FilterContext, Keep, ProblemFilter, Verifier
from delta_lightning.types import Problem, Prompt

BATCH = 1024  # problems whose tokens are counted at a time


def count_tokens(
    problems: Sequence[Problem], tokenizer: Any, templates: Templates, tick: Callable[[str, int, int], None]
) -> list[int]:
    """Lengths of the problems' prompts, tokens. `tick` is called as (phase, done, total) after each batch."""
    lengths: list[int] = []
    for start in range(0, len(problems), BATCH):
        texts = [templates.text(problem, tokenizer) for problem in problems[start : start + BATCH]]
        lengths += map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])
        tick("counting tokens", len(lengths), len(problems))
    return lengths


def refuse_comparing(filters: Sequence[ProblemFilter]) -> None:
    """Refuse filters that compare problems, where problems are read as they are drawn. Raises `ConfigError`."""
    together = [type(each).__name__ for each in filters if not each.row_local()]
    if together:
        raise ConfigError(
            "data.filters", wanted="filters that judge each problem by itself, since they are read as they are drawn",
            got=together[0], remedy="Run it over the file beforehand, or use a source that reads everything (Table).",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PromptMaker:
    """What makes prompts of problems.

    Args:
        tokenizer: a `transformers` tokenizer. verifier: reads references. templates: text around a question.
        max_prompt_tokens: longer prompts are refused. skip_unusable: leave out problems whose reference the verifier refuses.
        filters: which problems to leave out. tick: called as (phase, done, total). say: a line for people.
        report: see `FilterContext`.
    """

    tokenizer: Any
    verifier: Verifier
    templates: Templates
    max_prompt_tokens: int
    skip_unusable: bool = False
    filters: Sequence[ProblemFilter] = ()
    tick: Callable[[str, int, int], None] = lambda phase, done, total: None
    say: Callable[[str], None] = lambda line: None
    report: Callable[[str, str], None] = lambda name, text: None

    def opened(self, split: str, *, whole: bool = True) -> list[tuple[str, Keep]]:
        """The filters of a split with their names, in their order."""
        context = FilterContext(count_tokens=self.count_tokens, report=self.report, tick=self.tick, whole=whole)
        return [(type(each).__name__, each.open(context)) for each in self.filters if split in each.splits()]

    def count_tokens(self, problems: Sequence[Problem]) -> list[int]:
        """Lengths of the problems' prompts, tokens."""
        return count_tokens(problems, self.tokenizer, self.templates, self.tick)

    def all(self, problems: Sequence[Problem], split: str, limit: int | None = None) -> list[Prompt]:
        """Prompts of all problems that are kept, the first `limit` of them. Raises `ConfigError`: none, or unusable ones."""
        kept = list(problems)
        counts = [f"{len(kept):,} problems"]
        for name, keep in self.opened(split):
            before, kept = len(kept), [problem for problem, yes in zip(kept, keep(kept), strict=True) if yes]
            counts.append(f"{name} left out {before - len(kept):,}")
            if len(kept) < before:
                self.say(f"{split}: {name} left out {before - len(kept):,} of {before:,} problems")
        kept = kept[:limit]
        usable = check_references(
            kept, self.verifier, skip=self.skip_unusable,
            tick=lambda done, total: self.tick(f"checking {split} answers", done, total),
        )  # fmt: skip
        if len(usable) < len(kept):
            counts.append(f"{len(kept) - len(usable):,} with an answer that cannot be used")
            self.say(f"{split}: {len(kept) - len(usable)} of {len(kept)} problems left out, their answers cannot be used")
        prompts = make_prompts(
            usable, self.tokenizer, self.templates, self.max_prompt_tokens,
            tick=lambda done, total: self.tick(f"tokenizing {split} prompts", done, total),
        )  # fmt: skip
        if not prompts:
            raise ConfigError(f"data, split {split}", wanted="at least 1 problem", got="0: " + ", ".join(counts),
                              remedy="Check the source's files and data.filters.")  # fmt: skip
        return prompts


@dataclass(frozen=True, kw_only=True)
class DrawnPrompts(Sequence["Prompt | None"]):
    """Prompts made as they are asked for; None where a problem is left out. Keeps nothing but counts.

    Args:
        problems: read as they are asked for. maker: what makes prompts of them.
    """

    problems: Sequence[Problem]
    maker: PromptMaker
    left_out: Counter[str] = field(default_factory=Counter)
    _opened: list[tuple[str, Keep]] = field(default_factory=list)

    def __post_init__(self) -> None:
        refuse_comparing(self.maker.filters)
        if isinstance(self.problems, OnDemand):
            self.problems.tick = self.maker.tick  # type: ignore[assignment, method-assign]
        self._opened.extend(self.maker.opened("train", whole=False))

    def __len__(self) -> int:
        return len(self.problems)

    @overload
    def __getitem__(self, index: int) -> Prompt | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt | None]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt | None] | None:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        try:
            made = self._at(index)
        except ConfigError as error:
            raise RunError(f"a row that was drawn cannot be used: {error}") from error
        if isinstance(made, Prompt):
            return made
        self.left_out[made] += 1
        return None

    def _at(self, index: int) -> Prompt | str:
        """A prompt, or what left it out. Raises `ConfigError` where a row can neither be used nor left out."""
        try:
            problem = self.problems[index]
        except ConfigError:
            if self.maker.skip_unusable:
                return "malformed row"
            raise
        for name, keep in self._opened:
            if not keep([problem])[0]:
                return name
        maker = self.maker
        if not check_references([problem], maker.verifier, skip=maker.skip_unusable):
            return "unusable reference"
        return make_prompts([problem], maker.tokenizer, maker.templates, maker.max_prompt_tokens)[0]

    def place(self) -> dict[str, Any]:
        """See `OnDemand`."""
        return self.problems.place() if isinstance(self.problems, OnDemand) else {}

    def go_to(self, place: Mapping[str, Any]) -> None:
        """See `OnDemand`. Raises `ConfigError`."""
        if isinstance(self.problems, OnDemand):
            self.problems.go_to(place)

    def peek(self, place: int) -> Prompt | None:
        """The prompt at `place`, not counted in `left_out`; None where the row cannot be used, for whatever reason."""
        try:
            made = self._at(place)
        except ConfigError:
            return None
        return made if isinstance(made, Prompt) else None

    def tried(self, places: Sequence[int], name: str) -> list[Prompt]:
        """Prompts of some rows of a data set: what is checked before a run. Raises `ConfigError`: none, or an unusable one."""
        made = [self._at(place) for place in places]
        prompts = [each for each in made if isinstance(each, Prompt)]
        if not prompts:
            counts = Counter(each for each in made if isinstance(each, str))
            raise ConfigError(
                f"data {name}, split train", wanted=f"at least 1 problem among the first {len(places):,} rows",
                got="0: " + ", ".join(f"{name} left out {count:,}" for name, count in counts.items()),
                remedy="Check the files and data.filters.",
            )  # fmt: skip
        return prompts
