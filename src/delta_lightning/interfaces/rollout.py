"""The seams that make rollouts: where problems come from, what completes and judges them, which of them are trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from delta_lightning.types import (
    Completion,
    Example,
    Problem,
    Prompt,
    RolloutBatch,
    SamplingParams,
    SyncReceipt,
    Verdict,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class PromptSource(ABC):
    """Where problems come from.

    Laws: the same fields give the same problems in the same order; ids are unique; "train" and "held_out" share no problem.
    """

    @abstractmethod
    def check(self) -> None:
        """Refuse a missing or malformed file before anything heavy loads. Raises `ConfigError`."""

    @abstractmethod
    def problems(self, split: str) -> Sequence[Problem]:
        """All problems of `split`, "train" or "held_out". Raises `ConfigError` for rows that cannot be used."""

    def every(self) -> Iterable[Problem]:
        """All problems, whatever their split: what an evaluation set holds. Raises `ConfigError`."""
        return [*self.problems("train"), *self.problems("held_out")]

    def shares(self) -> Mapping[str, float]:
        """Weight of each data set (`Problem.source`) in what is trained on; empty: every problem once a pass."""
        return {}

    def on_demand(self) -> bool:
        """True if training problems are read as they are asked for: all of them would not fit into memory.

        Then they are filtered, checked and tokenized as they are drawn, and those that cannot be used are counted.
        """
        return False

    def shuffle_window(self) -> int | None:
        """Rows that are shuffled together where rows come one after another; None: all."""
        return None


@dataclass(frozen=True, kw_only=True)
class SamplerContext:
    """What a sampler may build its engine from.

    Attributes:
        model: the training model, a `transformers` causal LM, for engines that sample from it in place.
        tokenizer: its tokenizer. device: of this rank. rank, world_size: data-parallel.
        tick: called between decoding steps with (finished, total) completions; it may raise to interrupt.
        share: one picklable object per rank, on every rank, in rank order. Collective: every rank calls it, in the same order.
        say: shows people a line that stays. progress: shows them a phase of the opening, how much of it is done, of how much;
            it may raise to interrupt.
    """

    model: Any
    tokenizer: Any
    device: torch.device
    rank: int = 0
    world_size: int = 1
    tick: Callable[[int, int], None] | None = None
    share: Callable[[Any], list[Any]] = lambda value: [value]
    say: Callable[[str], None] = lambda line: None
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None


class SamplerSession(ABC):
    """A running engine.

    Laws: `num_completions` for each prompt, each with its version; `logprobs` are of the distribution really sampled from and
    `raw_logprobs` match the scorer; requests in flight are drained before weights change; every rank exhausts `weights`;
    the same prompts, seed and weights draw with the same numbers, whatever the rank, the company or the order of prompts, and
    give the same completions as long as rounding, which the batch decides, moves no draw over the edge between two tokens.
    """

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        """Completions in the order in which they finish. The model is the engine's until the generator ends or is closed."""

    @abstractmethod
    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Log-probabilities (temperature 1) of tokens 1.. of each given sequence: the probe that proves a weight update."""

    def logprobs_by_engine(self, token_ids: Sequence[Sequence[int]]) -> dict[str, list[Tensor]]:
        """The same by each engine of the session, by its name for people, "" where it has one. Every rank calls it."""
        return {"": self.logprobs(token_ids)}

    @abstractmethod
    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        """Serve the given weights from now on."""

    def rest(self) -> None:  # noqa: B027 -- a hook, not a duty
        """Nothing is sampled or scored before the next `update_weights`: an engine may free its memory until then."""

    @abstractmethod
    def close(self) -> None:
        """Free the engine. May be called twice."""


class Sampler(ABC):
    """Options of an engine; `open` starts it."""

    def check(self) -> Sequence[str]:
        """Refuse a machine without what the engine needs, before anything loads; lines for people. Raises `ConfigError`."""
        return ()

    def own_process(self) -> bool:
        """True if the engine runs in processes of its own, so that it can sample while the model is trained."""
        return False

    def ranks_sample_together(self) -> bool:
        """True if `generate` is collective, so that no rank may leave it while others are inside."""
        return False

    @abstractmethod
    def open(self, context: SamplerContext) -> SamplerSession:
        """Start the engine."""


class Verifier(ABC):
    """Judges one completion. Runs in worker processes: it must pickle and must not need torch.

    Laws: same input, same verdict (time-outs and remote judges excepted, and they say so); any string gives a verdict, never
    an exception; the verifier's own failure is `Status.ERROR`, a service that is away `Status.UNAVAILABLE`, and neither ever
    a reward of 0.
    """

    @abstractmethod
    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """The verdict on one completion."""

    def reference_fields(self) -> frozenset[str]:
        """Keys of `Prompt.reference` that `score` reads; checked against the data when a run starts."""
        return frozenset({"answer"})

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """Why this reference cannot be used (an answer that does not parse), or None. Called once a row, at load."""
        return None

    def check(self) -> Sequence[str]:
        """Refuse what cannot work on this machine: a package, sandbox or service that is missing.

        Called once, in the trainer's process, before anything heavy loads. Returns lines for people: what it found, and what
        that guarantees. Raises `ConfigError`.
        """
        return ()

    def limit_seconds(self) -> float | None:
        """Most seconds that the verifier's own time limits allow one `score`, None without any. The pool's must be longer."""
        return None

    def route(self, source: str) -> Verifier:
        """What judges the problems of that data set: itself, unless it dispatches by source. Raises `ConfigError` for none."""
        return self

    def examples(self) -> tuple[Example, ...]:
        """What `delta-lightning check` tries: one that is CORRECT where that is possible, and one that is not.

        They may depend on the fields. Without any, a reference must be given there.
        """
        return ()

    def warm_up(self) -> None:  # noqa: B027 -- a hook, not a duty
        """Import and build what is heavy. Called once in each worker process, before any time limit runs."""


class RewardShaping(ABC):
    """Changes rewards before anything reads them: a penalty on length, for example.

    Laws: finite, without gradient; rows with `valid_B` False keep 0; permuting rows permutes the result; independent of padding
    and of the number of ranks.
    """

    @abstractmethod
    def rewards(self, batch: RolloutBatch) -> Tensor:
        """[B], in the dtype of `batch.rewards_B`."""


class RolloutFilter(ABC):
    """Decides which groups and tokens are trained on.

    Laws: never enlarges the mask; idempotent; gives the same decision on any number of ranks.
    """

    @abstractmethod
    def keep_groups(self, batch: RolloutBatch) -> Tensor:
        """[P] bool, in the order of the distinct group ids of this rank, ascending: which prompts to keep."""

    @abstractmethod
    def apply(self, batch: RolloutBatch) -> RolloutBatch:
        """The batch with its mask shrunk."""
