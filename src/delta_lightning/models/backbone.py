"""Where the policy comes from: a model and its tokenizer, described by options and loaded late."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delta_lightning.models.weight_files import WeightFiles

Demonstration = tuple[tuple[int, ...], tuple[int, ...]]


def _no_demonstrations() -> Iterable[Demonstration]:
    return ()


def _silent_tick(phase: str, done: int, total: int) -> None:
    return None


def _silent(line: str) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class LoadContext:
    """What a backbone may use while it loads.

    Attributes:
        seed: of the run; random weights are drawn from it unless the backbone has a seed of its own.
        demonstrations: gives (prompt ids, answer ids with the end-of-sequence token) of the training problems that carry a
            worked solution; called only by backbones that learn from them.
        tick: shows progress as (phase, done, total); it may raise to interrupt.
        say: prints one line that stays.
    """

    seed: int = 0
    demonstrations: Callable[[], Iterable[Demonstration]] = _no_demonstrations
    tick: Callable[[str, int, int], None] = _silent_tick
    say: Callable[[str], None] = _silent


class Backbone(ABC):
    """Options of a causal language model of `transformers`; nothing heavy is imported before a method needs it.

    Laws: `check` is cheap and imports neither `transformers` nor weights; `tokenizer` needs no model and `meta` no tokenizer;
    `load` gives the same parameters for the same options and context; the model's body is `model.model` and its head
    `model.lm_head`.
    """

    @abstractmethod
    def check(self) -> None:
        """Refuse what cannot be loaded (missing folder, no weights, unreadable config). Raises `ConfigError`."""

    @abstractmethod
    def tokenizer(self) -> Any:
        """The tokenizer, a `transformers` one, with an end-of-sequence token."""

    def context_length(self) -> int | None:
        """Longest sequence, prompt and completion, tokens; None if it is not known before loading."""
        return None

    def attention_kernel(self) -> str:
        """The attention kernel, as `transformers` calls it."""
        return "sdpa"

    def use_kernels(self, model: Any) -> None:
        """Puts other kernels into the model, in place, once it lies where it is to compute; results stay up to rounding."""
        return

    @abstractmethod
    def load(self, context: LoadContext) -> Any:
        """The model, on the CPU and in evaluation mode; float32 unless the options say otherwise."""

    def weight_files(self, context: LoadContext) -> WeightFiles | None:
        """The files from which every rank can read its own rows of the model; None if it must be loaded as a whole.

        The model that comes of them is the one that `load` gives. Raises `ConfigError` if they cannot be had.
        """
        return None

    def knows_sizes(self) -> bool:
        """True if `meta` needs neither weights nor a network."""
        return True

    @abstractmethod
    def meta(self) -> Any:
        """The model on the meta device: its architecture without weights, for plans and memory estimates."""
