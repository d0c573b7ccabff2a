"""Several sources in one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from delta_lightning.data.interleaving import turns
from delta_lightning.data.joined import Joined, renamed
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

    With `weights`, training takes the sources in fixed shares instead: of the first n prompts drawn, for any n, n w are of a
    source of weight w, up to less than one; a source that is used up begins again, newly shuffled, whatever the others do
    (`data/order.py`). Weights are relative: {a: 3, b: 1} is {a: 0.75, b: 0.25}.

    Shares are of what is drawn: a problem that is left out as it is drawn (`OnDisk`) is not replaced by one of its own source.
    Where a source reads its problems on demand, they are not interleaved but stand one source after another, which shuffling
    or weights mix.

    Args:
        sources: name -> source, at least one; a name has no slash.
        weights: name -> weight above 0, for every source; None: every problem once a pass.
        path: folder from which the relative paths of the sources start; None leaves them as they are.

    Raises:
        ConfigError: no source, a name with a slash, or weights that are not those of the sources.
    """

    sources: Mapping[str, PromptSource]
    weights: Mapping[str, float] | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        require(len(self.sources) > 0, "Mixture.sources", wanted="at least one", got={}, remedy="Name a source.")
        odd = [name for name in self.sources if not name or "/" in name]
        require(not odd, "Mixture.sources", wanted="names without a slash", got=odd, remedy="The name goes before every id.")
        streams = [name for name, source in self.sources.items() if source.shuffle_window() is not None]
        require(not streams, "Mixture.sources", wanted="sources whose rows can be read in any order", got=streams,
                remedy="Read them by OnDisk, or train on the stream alone.")  # fmt: skip
        if self.weights is not None:
            require(self.weights.keys() == self.sources.keys(), "Mixture.weights",
                    wanted=f"a weight for each of {', '.join(self.sources)}", got=dict(self.weights),
                    remedy="Name every source once.")  # fmt: skip
            turns(self.weights, "Mixture.weights")

    def check(self) -> None:
        """Every source's own check. Raises `ConfigError`, with the source's name."""
        for name, source in self._placed().items():
            try:
                source.check()
            except ConfigError as error:
                raise _named(name, error) from error

    def problems(self, split: str) -> Sequence[Problem]:
        """All problems of `split`, interleaved. Raises `ConfigError`, with the source's name."""
        parts: dict[str, Sequence[Problem]] = {}
        for name, source in self._placed().items():
            try:
                parts[name] = source.problems(split)
            except ConfigError as error:
                raise _named(name, error) from error
        if split == "train" and self.on_demand():
            return Joined(parts)
        places: list[tuple[float, int, Problem]] = []
        for number, (name, problems) in enumerate(parts.items()):
            places += [((place + 0.5) / len(problems), number, renamed(each, name)) for place, each in enumerate(problems)]
        return [problem for _, _, problem in sorted(places, key=lambda item: item[:2])]

    def every(self) -> Iterator[Problem]:
        """All problems of all sources, one source after another. Raises `ConfigError`, with the source's name."""
        for name, source in self._placed().items():
            try:
                yield from (renamed(problem, name) for problem in source.every())
            except ConfigError as error:
                raise _named(name, error) from error

    def shares(self) -> Mapping[str, float]:
        """The weights."""
        return self.weights or {}

    def on_demand(self) -> bool:
        """True if any source is."""
        return any(source.on_demand() for source in self.sources.values())

    def _placed(self) -> dict[str, PromptSource]:
        """The sources, their relative paths made to start from `path`."""
        return {name: source if self.path is None else _under(self.path, source) for name, source in self.sources.items()}


def _under(folder: str, source: PromptSource) -> PromptSource:
    own = getattr(source, "path", None)  # sources of files have one
    return dataclasses.replace(source, path=str(Path(folder).expanduser() / own)) if isinstance(own, str) else source  # type: ignore[type-var]


def _named(name: str, error: ConfigError) -> ConfigError:
    return ConfigError(f"{name}: {error.what}", wanted=error.wanted, got=error.got, remedy=error.remedy)
