"""Prompts of a run, and where in them a run is."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl

from delta_lightning.data.fingerprint import SAMPLES, Fingerprint, data_changed
from delta_lightning.data.joined import places_by_source, source_names
from delta_lightning.data.maker import DrawnPrompts, PromptMaker
from delta_lightning.data.order import Order, Passes, Weighted, Windows
from delta_lightning.data.prompts import PromptTemplate, Templates
from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.interfaces import ProblemFilter, PromptSource, Verifier
from delta_lightning.trainer.folder_notes import FolderNotes
from delta_lightning.trainer.loader import PromptLoader, RolloutLoader
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Prompt

VALIDATION_CHUNK = 128  # prompts sampled together on each rank
LOOKED_AT = 256  # rows of each data set checked before a run whose rows are read as they are drawn
GIVE_UP = 10_000  # rows in a row that cannot be used


class PromptData(pl.LightningDataModule):
    """Problems made into prompts, served in a shuffled order that depends on nothing but the seed.

    Args:
        source: where problems come from.
        path: file or folder; shorthand for the source's own `path`.
        template: text of a prompt, `{question}` in it is replaced by the question; or a part that makes it, such as `Chat`.
        templates: data set -> template, instead of `template`, where a source mixes several (`Mixture`).
        max_prompt_tokens: longest prompt, tokens; longer ones are refused, with their number.
        held_out_prompts: problems of the held-out split that `validate` uses (all if there are fewer).
        unusable_references: what to do with problems whose reference the verifier refuses: "error" or "skip" (counted).
        shuffle: a new keyed permutation for each pass over the data; False keeps the source's order.
        filters: which problems are left out before anything is sampled, one after another.
        accept_changed: resume although the training prompts are not those of the checkpoint's run.
    """

    def __init__(
        self,
        source: PromptSource,
        path: str | None = None,
        template: PromptTemplate | str = "{question}",
        max_prompt_tokens: int = 1024,
        held_out_prompts: int = 256,
        unusable_references: Literal["error", "skip"] = "error",
        shuffle: bool = True,
        templates: Mapping[str, PromptTemplate | str] | None = None,
        filters: list[ProblemFilter] = [],  # noqa: B006
        accept_changed: bool = False,
    ) -> None:
        super().__init__()
        self.source = _with_path(source, path)
        self.templates = Templates(default=template, by_source=templates or {})
        self.max_prompt_tokens, self.held_out_prompts = max_prompt_tokens, held_out_prompts
        self.unusable_references, self.shuffle, self.accept_changed = unusable_references, shuffle, accept_changed
        self.filters = tuple(filters)
        self.train_prompts: Sequence[Prompt | None] = []
        self.validation_prompts: list[Prompt] = []
        self.loader: RolloutLoader | None = None
        self._fingerprint: Fingerprint | None = None
        self._looked_at: list[Prompt] = []  # of a source that is read as it is drawn
        self._order: tuple[tuple[int, int, int], Order] | None = None
        self._notes = FolderNotes()
        require(
            max_prompt_tokens >= 1, "data.max_prompt_tokens", wanted="at least 1", got=max_prompt_tokens, remedy="Raise it."
        )
        require(held_out_prompts >= 1, "data.held_out_prompts", wanted="at least 1", got=held_out_prompts, remedy="Raise it.")

    def prepare(self, tokenizer: Any, verifier: Verifier, progress: Progress) -> None:
        """Read, check and tokenize both splits, before any model loads. Raises `ConfigError`."""
        if self.train_prompts:
            return
        self.source.check()
        for each in self.filters:
            each.check()
        maker = PromptMaker(
            tokenizer=tokenizer, verifier=verifier, templates=self.templates, max_prompt_tokens=self.max_prompt_tokens,
            skip_unusable=self.unusable_references == "skip", filters=self.filters, tick=progress, say=progress.line,
            report=self._notes.add,
        )  # fmt: skip
        problems = self.source.problems("train")
        if self.source.on_demand():
            self.templates.refuse_unknown(source_names(problems))
            train: Sequence[Prompt | None] = DrawnPrompts(problems=problems, maker=maker)
        else:
            self.templates.refuse_unknown([problem.source for problem in problems])
            train = maker.all(problems, "train")
        held_out = self.source.problems("held_out")
        self.templates.refuse_unknown([problem.source for problem in held_out])
        self.validation_prompts = maker.all(held_out, "held_out", self.held_out_prompts)
        self.train_prompts = train
        if isinstance(train, DrawnPrompts):
            parts = places_by_source(train).items()
            self._looked_at = [prompt for name, places in parts for prompt in train.tried(places[:LOOKED_AT], name)]

    def setup(self, stage: str) -> None:
        """The run folder is known from now on: what filters report goes there."""
        if stage == "fit" and self.trainer is not None:
            self._notes.open(Path(self.trainer.default_root_dir) if self.trainer.is_global_zero else None)

    def known_prompts(self) -> list[Prompt]:
        """Training prompts that are at hand: all, or the first ones of a source that is read as it is drawn."""
        return self._looked_at or [prompt for prompt in self.train_prompts if prompt is not None]

    def source_names(self) -> list[str]:
        """Data sets that training prompts come from."""
        return sorted(places_by_source(self.train_prompts))

    def lengths(self) -> list[int]:
        """Tokens of the prompts of both splits; where not all are known, of those that are, and the longest allowed."""
        known = [len(prompt.token_ids) for prompt in [*self.known_prompts(), *self.validation_prompts]]
        return [*known, self.max_prompt_tokens] if self._looked_at else known

    def check_shares(self, per_step: int) -> None:
        """Refuse weights that take more prompts of a data set in one rollout step than it has. Raises `ConfigError`."""
        weights = self.source.shares()
        places, total = places_by_source(self.train_prompts), sum(weights.values())
        for name, weight in weights.items():
            most, there = int(per_step * weight / total) + 1, len(places.get(name, ()))
            require(most <= there, "data.source.weights", wanted=f"a weight of {name!r} that its {there} prompts can fill",
                    got=f"{weight:g}, up to {most} of {per_step} prompts in a rollout step",
                    remedy="Lower the weight or prompts_per_step, or give more data.")  # fmt: skip

    def demonstrations(self, tokenizer: Any) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(prompt ids, answer ids with end of sequence) of the training problems that carry a worked solution."""
        kept = {prompt.id for prompt in self.known_prompts()} if self.filters else None
        for problem in self.source.problems("train"):
            if problem.solution is not None and (kept is None or problem.id in kept):
                prompt = tokenizer.encode(self.templates.text(problem, tokenizer), add_special_tokens=False)
                answer = tokenizer.encode(problem.solution, add_special_tokens=False)
                yield tuple(prompt), (*answer, tokenizer.eos_token_id)

    def stream(self, drawn: int, per_step: int, *, seed: int) -> TrainStream:
        """The prompts of one rollout step, the run having drawn `drawn` before it; the same on every rank."""
        return TrainStream(self, drawn=drawn, per_step=per_step, seed=seed)

    def nth(self, number: int, per_step: int, *, seed: int) -> Prompt | None:
        """Draw `number` of the endless sequence of training prompts; None where the problem is left out."""
        return self.train_prompts[self._ordered(per_step, seed).at(number)]

    def _ordered(self, per_step: int, seed: int) -> Order:
        key = (len(self.train_prompts), per_step, seed)
        if self._order is None or self._order[0] != key:
            weights, size, window = self.source.shares(), len(self.train_prompts), self.source.shuffle_window()
            order: Order = Passes(size, per_step, seed=seed, shuffle=self.shuffle)
            if window is not None:
                order = Windows(size, window, per_step, seed=seed, shuffle=self.shuffle)
            elif weights:
                order = Weighted(places_by_source(self.train_prompts), weights, seed=seed, shuffle=self.shuffle)
            self._order = (key, order)
        return self._order[1]

    def attach(self, loader: RolloutLoader) -> None:
        """Called by the module, which makes the rollouts."""
        self.loader = loader

    def train_dataloader(self) -> RolloutLoader:
        """The rollout loader."""
        assert self.loader is not None
        return self.loader

    def val_dataloader(self) -> PromptLoader:
        """This rank's held-out prompts, in chunks."""
        return PromptLoader(self.validation_prompts, VALIDATION_CHUNK, Ranks.current())

    def fingerprint(self) -> Fingerprint:
        """Of the training prompts, computed once; of up to 4096 rows of a source that is read as it is drawn."""
        if self._fingerprint is None:
            prompts, count = self.train_prompts, len(self.train_prompts)
            if self.source.shuffle_window() is not None:
                self._fingerprint = Fingerprint.of(self._looked_at, count=count)
            elif isinstance(prompts, DrawnPrompts):
                stride = -(-count // SAMPLES)
                self._fingerprint = Fingerprint.of(map(prompts.peek, range(0, count, stride)), count=count, stride=stride)
            else:
                self._fingerprint = Fingerprint.of(prompts, count=count)
        return self._fingerprint

    def refuse_changed(self, state: Mapping[str, Any]) -> None:
        """Refuse to go on from this module's state of a run with other training prompts. Raises `ConfigError`.

        A state without a checksum, of an earlier version, is taken as it is.
        """
        if self.accept_changed or "fingerprint" not in state:
            return
        before = Fingerprint.from_state(state["fingerprint"])
        error = data_changed(before, self.fingerprint(), self._name)
        if error is not None:
            raise error
        if isinstance(self.train_prompts, DrawnPrompts):
            self.train_prompts.go_to(state.get("rows", {}))

    def _name(self, number: int) -> str:
        """Id of prompt `number` of the fingerprint."""
        prompts: Sequence[Prompt | None] = self.train_prompts if self.source.shuffle_window() is None else self._looked_at
        prompt = prompts.peek(number) if isinstance(prompts, DrawnPrompts) else prompts[number]
        return "a row that is left out or cannot be used" if prompt is None else prompt.id

    def state_dict(self) -> dict[str, Any]:
        """Checksum of and position in the data, with the buffer when a checkpoint falls inside one. Collective."""
        if self.loader is None:
            return {}
        place = self.train_prompts.place() if isinstance(self.train_prompts, DrawnPrompts) else {}
        state = self.loader.state(Ranks.current()) | {"fingerprint": self.fingerprint().state()}
        return state | {"rows": place} if place else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the loader back where it was. Raises `ConfigError` for a run with other data."""
        if state_dict and self.loader is not None:
            self.refuse_changed(state_dict)
            self.loader.restore(state_dict, Ranks.current())


class TrainStream:
    """Prompts of one rollout step, each at most once; `drawn` counts those that the run has used up, skipped ones too."""

    def __init__(self, data: PromptData, *, drawn: int, per_step: int, seed: int) -> None:
        self._data, self._per_step, self._seed = data, per_step, seed
        self._taken: dict[str, str] = {}  # id -> data set
        self._looked = self._left_out = self._unusable = 0
        self.drawn = drawn

    def take(self, count: int) -> list[Prompt]:
        """The next `count` prompts, fewer once the step has seen as many as a pass holds.

        Raises `RunError` where 10,000 rows one after another cannot be used.
        """
        prompts: list[Prompt] = []
        size = len(self._data.train_prompts)
        most = size // self._per_step * self._per_step
        while len(prompts) < count and len(self._taken) < most and self._looked < 2 * size:
            prompt = self._data.nth(self.drawn, self._per_step, seed=self._seed)
            self.drawn, self._looked = self.drawn + 1, self._looked + 1
            self._unusable = self._unusable + 1 if prompt is None else 0
            self._left_out += prompt is None
            if self._unusable >= GIVE_UP:
                raise RunError(f"{GIVE_UP:,} rows of the data one after another were left out; see data.filters")
            if prompt is not None and prompt.id not in self._taken:
                self._taken[prompt.id] = prompt.source
                prompts.append(prompt)
        return prompts

    def observe(self, book: MetricBook) -> None:
        """Shares of the data sets in what was taken, where there are several; rows left out, where they are read as drawn."""
        names = self._data.source_names()
        taken = Counter(self._taken.values())
        for name in names if len(names) > 1 else ():
            book.add(f"data/share/{name}", taken[name], len(self._taken))
        if isinstance(self._data.train_prompts, DrawnPrompts):
            book.add("data/left_out_share", self._left_out, self._looked)


def _with_path(source: PromptSource, path: str | None) -> PromptSource:
    if path is None:
        return source
    if "path" not in {item.name for item in dataclasses.fields(source)}:  # type: ignore[arg-type]
        raise ConfigError(
            "data.path", wanted="a source that reads files", got=type(source).__name__,
            remedy="Leave data.path out, or choose a source with a path, such as Table.",
        )  # fmt: skip
    return dataclasses.replace(source, path=path)  # type: ignore[type-var]
