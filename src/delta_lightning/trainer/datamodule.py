"""Prompts of a run, and where in them a run is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch

from delta_lightning.data.fingerprint import Fingerprint, data_changed
from delta_lightning.data.prompts import PromptTemplate, Templates, make_prompts
from delta_lightning.data.references import check_references
from delta_lightning.errors import ConfigError, require
from delta_lightning.functional.random import stable_hash
from delta_lightning.interfaces import PromptSource, Verifier
from delta_lightning.trainer.loader import PromptLoader, RolloutLoader
from delta_lightning.trainer.progress import Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Problem, Prompt

VALIDATION_CHUNK = 128  # prompts sampled together on each rank


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
        accept_changed: bool = False,
    ) -> None:
        super().__init__()
        self.source = _with_path(source, path)
        self.templates = Templates(default=template, by_source=templates or {})
        self.max_prompt_tokens, self.held_out_prompts = max_prompt_tokens, held_out_prompts
        self.unusable_references, self.shuffle, self.accept_changed = unusable_references, shuffle, accept_changed
        self.train_prompts: list[Prompt] = []
        self.validation_prompts: list[Prompt] = []
        self.loader: RolloutLoader | None = None
        self._fingerprint: Fingerprint | None = None
        self._permutation: tuple[tuple[int, int, int] | None, list[int]] = (None, [])
        require(
            max_prompt_tokens >= 1, "data.max_prompt_tokens", wanted="at least 1", got=max_prompt_tokens, remedy="Raise it."
        )
        require(held_out_prompts >= 1, "data.held_out_prompts", wanted="at least 1", got=held_out_prompts, remedy="Raise it.")

    def prepare(self, tokenizer: Any, verifier: Verifier, progress: Progress) -> None:
        """Read, check and tokenize both splits, before any model loads. Raises `ConfigError`."""
        if self.train_prompts:
            return
        self.source.check()
        train = self._split("train", tokenizer, verifier, progress)
        held_out = self._split("held_out", tokenizer, verifier, progress)
        self.train_prompts, self.validation_prompts = train, held_out

    def _split(self, split: str, tokenizer: Any, verifier: Verifier, progress: Progress) -> list[Prompt]:
        problems: Sequence[Problem] = self.source.problems(split)
        self.templates.refuse_unknown([problem.source for problem in problems])
        if split == "held_out":
            problems = problems[: self.held_out_prompts]
        usable = check_references(
            problems, verifier, skip=self.unusable_references == "skip",
            tick=lambda done, total: progress(f"checking {split} answers", done, total),
        )  # fmt: skip
        if len(usable) < len(problems):
            progress.line(
                f"{split}: {len(problems) - len(usable)} of {len(problems)} problems left out, their answers cannot be used"
            )
        prompts = make_prompts(
            usable, tokenizer, self.templates, self.max_prompt_tokens,
            tick=lambda done, total: progress(f"tokenizing {split} prompts", done, total),
        )  # fmt: skip
        if not prompts:
            raise ConfigError(f"data, split {split}", wanted="at least 1 problem", got="0", remedy="Check the source's files.")
        return prompts

    def demonstrations(self, tokenizer: Any) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(prompt ids, answer ids with end of sequence) of the training problems that carry a worked solution."""
        for problem in self.source.problems("train"):
            if problem.solution is not None:
                prompt = tokenizer.encode(self.templates.text(problem, tokenizer), add_special_tokens=False)
                answer = tokenizer.encode(problem.solution, add_special_tokens=False)
                yield tuple(prompt), (*answer, tokenizer.eos_token_id)

    def stream(self, drawn: int, per_step: int, *, seed: int) -> TrainStream:
        """The prompts of one rollout step, the run having drawn `drawn` before it; the same on every rank."""
        return TrainStream(self, drawn=drawn, per_step=per_step, seed=seed)

    def nth(self, number: int, per_step: int, *, seed: int) -> Prompt:
        """Training prompt `number` of the endless sequence of passes.

        A pass ends with its last full step of `per_step` prompts, so that without refill no prompt stands twice in a step.
        """
        size = len(self.train_prompts)
        passes, within = divmod(number, size // per_step * per_step)
        order = self._order(passes, size, seed) if self.shuffle else range(size)
        return self.train_prompts[order[within]]

    def _order(self, passes: int, size: int, seed: int) -> list[int]:
        """The permutation of one pass."""
        if self._permutation[0] != (passes, size, seed):
            generator = torch.Generator().manual_seed(stable_hash(seed, "order", passes))
            self._permutation = ((passes, size, seed), torch.randperm(size, generator=generator).tolist())
        return self._permutation[1]

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
        """Of the training prompts, computed once."""
        if self._fingerprint is None:
            self._fingerprint = Fingerprint.of(self.train_prompts, count=len(self.train_prompts))
        return self._fingerprint

    def refuse_changed(self, state: Mapping[str, Any]) -> None:
        """Refuse to go on from this module's state of a run with other training prompts. Raises `ConfigError`.

        A state without a checksum, of an earlier version, is taken as it is.
        """
        if self.accept_changed or "fingerprint" not in state:
            return
        before = Fingerprint.from_state(state["fingerprint"])
        error = data_changed(before, self.fingerprint(), lambda number: self.train_prompts[number].id)
        if error is not None:
            raise error

    def state_dict(self) -> dict[str, Any]:
        """Checksum of and position in the data, with the buffer when a checkpoint falls inside one. Collective."""
        if self.loader is None:
            return {}
        return self.loader.state(Ranks.current()) | {"fingerprint": self.fingerprint().state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the loader back where it was. Raises `ConfigError` for a run with other data."""
        if state_dict and self.loader is not None:
            self.refuse_changed(state_dict)
            self.loader.restore(state_dict, Ranks.current())


class TrainStream:
    """Prompts of one rollout step, each at most once; `drawn` counts those that the run has used up, skipped ones too."""

    def __init__(self, data: PromptData, *, drawn: int, per_step: int, seed: int) -> None:
        self._data, self._per_step, self._seed = data, per_step, seed
        self._taken: set[str] = set()
        self.drawn = drawn

    def take(self, count: int) -> list[Prompt]:
        """The next `count` prompts, fewer once the step has seen as many as a pass holds."""
        prompts: list[Prompt] = []
        most = len(self._data.train_prompts) // self._per_step * self._per_step
        while len(prompts) < count and len(self._taken) < most:
            prompt = self._data.nth(self.drawn, self._per_step, seed=self._seed)
            self.drawn += 1
            if prompt.id not in self._taken:
                self._taken.add(prompt.id)
                prompts.append(prompt)
        return prompts


def _with_path(source: PromptSource, path: str | None) -> PromptSource:
    if path is None:
        return source
    if "path" not in {item.name for item in dataclasses.fields(source)}:  # type: ignore[arg-type]
        raise ConfigError(
            "data.path", wanted="a source that reads files", got=type(source).__name__,
            remedy="Leave data.path out, or choose a source with a path, such as Table.",
        )  # fmt: skip
    return dataclasses.replace(source, path=path)  # type: ignore[type-var]
