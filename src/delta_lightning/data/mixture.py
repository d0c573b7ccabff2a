"""Several sources in one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from delta_lightning.errors import ConfigError, require
from delta_lightning.interfaces import PromptSource
from delta_lightning.types import Problem


@dataclass(frozen=True, kw_only=True)
class Mixture(PromptSource):
    """The problems of several sources, each under the source's name here.

    The name is `Problem.source`, by which `BySource` chooses the verifier, `data.templates` the template and metrics are told
    apart; "name/" goes before each id, so that ids stay unique. Sources are interleaved in proportion to their sizes: the
    first n problems of a split, for any n, hold them in the proportions of the whole, up to one problem each. So
    `data.held_out_prompts` takes its problems from all of them. Sizes are set by each source's own fields (`limit` of
    `Table`).

    Args:
        sources: name -> source, at least one; a name has no slash.
        path: folder from which the relative paths of the sources start; None leaves them as they are.

    Raises:
        ConfigError: no source, or a name with a slash.
    """

    sources: Mapping[str, PromptSource]
    path: str | None = None

    def __post_init__(self) -> None:
        require(len(self.sources) > 0, "Mixture.sources", wanted="at least one", got={}, remedy="Name a source.")
        odd = [name for name in self.sources if not name or "/" in name]
        require(not odd, "Mixture.sources", wanted="names without a slash", got=odd, remedy="The name goes before every id.")

    def check(self) -> None:
        """Every source's own check. Raises `ConfigError`, with the source's name."""
        for name, source in self._placed().items():
            try:
                source.check()
            except ConfigError as error:
                raise _named(name, error) from error

    def problems(self, split: str) -> Sequence[Problem]:
        """All problems of `split`, interleaved. Raises `ConfigError`, with the source's name."""
        places: list[tuple[float, int, Problem]] = []
        for number, (name, source) in enumerate(self._placed().items()):
            try:
                problems = source.problems(split)
            except ConfigError as error:
                raise _named(name, error) from error
            for place, problem in enumerate(problems):
                renamed = dataclasses.replace(problem, id=f"{name}/{problem.id}", source=name)
                places.append(((place + 0.5) / len(problems), number, renamed))
        return [problem for _, _, problem in sorted(places, key=lambda item: item[:2])]

    def _placed(self) -> dict[str, PromptSource]:
        """The sources, their relative paths made to start from `path`."""
        return {name: source if self.path is None else _under(self.path, source) for name, source in self.sources.items()}


def _under(folder: str, source: PromptSource) -> PromptSource:
    own = getattr(source, "path", None)  # sources of files have one
    return dataclasses.replace(source, path=str(Path(folder).expanduser() / own)) if isinstance(own, str) else source  # type: ignore[type-var]


def _named(name: str, error: ConfigError) -> ConfigError:
    return ConfigError(f"{name}: {error.what}", wanted=error.wanted, got=error.got, remedy=error.remedy)
