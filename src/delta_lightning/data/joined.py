"""Several sequences of problems one after the other, none of them read before it is asked for."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from delta_lightning.data.maker import DrawnPrompts
from delta_lightning.data.on_demand import OnDemand
from delta_lightning.types import Problem, Prompt


class Joined(OnDemand):
    """The problems of each data set under its name here, "name/" before each id.

    Args:
        parts: name -> its problems.
    """

    def __init__(self, parts: Mapping[str, Sequence[Problem]]) -> None:
        self._names, self._parts = list(parts), list(parts.values())
        self._ends = list(accumulate(len(part) for part in self._parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def at(self, index: int) -> Problem:
        """See `OnDemand`."""
        number = bisect_right(self._ends, index)
        problem = self._parts[number][index - (self._ends[number] - len(self._parts[number]))]
        return renamed(problem, self._names[number])

    def places(self) -> dict[str, range]:
        """Name -> where its problems are."""
        return {name: range(end - len(part), end) for name, end, part in zip(self._names, self._ends, self._parts, strict=True)}


def renamed(problem: Problem, name: str) -> Problem:
    """The problem under the name of its data set in a mixture."""
    return dataclasses.replace(problem, id=f"{name}/{problem.id}", source=name)


def source_names(problems: Sequence[Problem]) -> list[str]:
    """Data sets of problems that are read as they are asked for: one, the first problem's, unless several were joined."""
    return list(problems.places()) if isinstance(problems, Joined) else [problems[0].source]


def places_by_source(prompts: Sequence[Prompt | None]) -> Mapping[str, Sequence[int]]:
    """Data set -> places of its prompts, ascending."""
    if isinstance(prompts, DrawnPrompts):
        problems = prompts.problems
        return problems.places() if isinstance(problems, Joined) else {source_names(problems)[0]: range(len(problems))}
    places: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        if prompt is not None:
            places.setdefault(prompt.source, []).append(place)
    return places
