"""Training problems that give an evaluation set away."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from delta_lightning.data.overlap import Match, NgramIndex
from delta_lightning.data.problem_filters.decontamination_page import page
from delta_lightning.errors import ConfigError, require
from delta_lightning.interfaces import FilterContext, Keep, ProblemFilter, PromptSource
from delta_lightning.types import Problem

ROWS, PAGE = "decontamination.jsonl", "decontamination.md"


@dataclass(frozen=True, kw_only=True)
class Decontaminate(ProblemFilter):
    """Leaves out problems whose question overlaps with a question of an evaluation set, and writes down which and why.

    A question is words, numbers and operators (`data/words.py`): case, spacing, punctuation and the layout of LaTeX do not
    count. With s(t, e) the share of the words of evaluation question e that lie in n-grams which the training question t has
    too (`data/overlap.py`), t is contaminated if for some e

        s(t, e) > 0  and  s(t, e) >= min_share.

    The defaults are those of Tülu 3 (Lambert et al., arXiv 2411.15124, section 3.2): 8-grams, at least half of the words.
    `n: 13, min_share: 0` is GPT-3's (Brown et al., arXiv 2005.14165, appendix C): any common 13-gram; on mathematics it also
    finds phrases that many problems share. An evaluation question of fewer than n words is matched as a whole. Paraphrases,
    translations and new numbers in an old problem are not found.

    The run folder gets decontamination.jsonl, a line for each contaminated problem and the question that it covers most of,
    and decontamination.md for people.

    Args:
        against: name -> evaluation set; all of its problems count, whatever their split.
        n: words of an n-gram. min_share: smallest share of an evaluation question's words, 0 to 1.
        action: "drop" leaves contaminated problems out; "report" keeps them and only writes them down.
    """

    against: Mapping[str, PromptSource]
    n: int = 8
    min_share: float = 0.5
    action: Literal["drop", "report"] = "drop"

    def __post_init__(self) -> None:
        require(
            len(self.against) > 0, "Decontaminate.against", wanted="at least one evaluation set", got={}, remedy="Name one."
        )
        require(self.n >= 1, "Decontaminate.n", wanted="at least 1", got=self.n, remedy="8 or 13 are usual.")
        require(0 <= self.min_share <= 1, "Decontaminate.min_share", wanted="a share, 0 to 1", got=self.min_share,
                remedy="0.5 is half of a question's words.")  # fmt: skip

    def check(self) -> None:
        """Every evaluation set's own check. Raises `ConfigError`, with its name."""
        for name, source in self.against.items():
            try:
                source.check()
            except ConfigError as error:
                raise _named(name, error) from error

    def index(self) -> NgramIndex:
        """The n-grams of all evaluation questions. Raises `ConfigError`, with the name of the set."""
        questions: list[tuple[str, str, str]] = []
        for name, source in self.against.items():
            try:
                questions += [(name, problem.id, problem.question) for problem in source.every()]
            except ConfigError as error:
                raise _named(name, error) from error
        return NgramIndex(self.n, questions)

    def open(self, context: FilterContext) -> Keep:
        """Reads the evaluation sets."""
        index = self.index()

        def keep(problems: Sequence[Problem]) -> list[bool]:
            found: list[tuple[Problem, Match]] = []
            kept: list[bool] = []
            for done, problem in enumerate(problems, 1):
                match = self.match(index, problem)
                kept.append(match is None or self.action == "report")
                if match is not None:
                    found.append((problem, match))
                context.tick("comparing with evaluation sets", done, len(problems))
            if found:
                context.report(ROWS, "".join(line(problem, match) for problem, match in found))
            if context.whole:
                context.report(PAGE, self.page(found, len(problems), index, f"stand in {ROWS}"))
            return kept

        return keep

    def page(self, found: Sequence[tuple[Problem, Match]], problems: int, index: NgramIndex, more: str) -> str:
        """What was found among so many problems, for people; `more` says where what is not shown stands."""
        return page(found, problems, index.questions, self.n, self.min_share, self.action, more)

    def match(self, index: NgramIndex, problem: Problem) -> Match | None:
        """The evaluation question of which the problem covers most, if that is enough."""
        best = index.best(problem.question)
        return best if best is not None and best.share >= self.min_share else None


def line(problem: Problem, match: Match) -> str:
    """A contaminated problem and its evaluation question as a line of JSON."""
    row = {
        "source": problem.source, "id": problem.id, "evaluation": match.question.name, "evaluation_id": match.question.id,
        "share": round(match.share, 4), "ngram": match.gram, "question": problem.question,
        "evaluation_question": match.question.text,
    }  # fmt: skip
    return json.dumps(row, ensure_ascii=False) + "\n"


def _named(name: str, error: ConfigError) -> ConfigError:
    return ConfigError(f"Decontaminate.against, {name}: {error.what}", wanted=error.wanted, got=error.got, remedy=error.remedy)
