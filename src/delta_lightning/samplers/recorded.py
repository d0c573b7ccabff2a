"""Plays recorded completions again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from delta_lightning.errors import ConfigError, require
from delta_lightning.interfaces import Sampler, SamplerContext, SamplerSession
from delta_lightning.models.probe import sequence_logprobs
from delta_lightning.samplers.hf import counted
from delta_lightning.samplers.tape import PATTERN, Call, about, calls, fingerprint, plain
from delta_lightning.types import Completion, Prompt, SamplingParams, SyncReceipt

Key = tuple[int, int, str]  # version of the weights, seed, id of the prompt


@dataclass(frozen=True, kw_only=True)
class RecordedSampler(Sampler):
    """Completions from a folder that `RecordingSampler` wrote, on any number of ranks: nothing is sampled.

    A prompt is given what was recorded for it under the same version of the weights and the same seed; what was recorded more
    than once, such as held-out answers of several evaluations, comes in the order of the recording. The weights that a replay
    trains may differ from the recorded ones from the first update on: then `mismatch/*` measures how far they are apart.

    Args:
        path: the folder.

    Raises:
        ConfigError: no recording there, or one of another format.
    """

    path: str

    def __post_init__(self) -> None:
        require(bool(self._files()), "RecordedSampler.path", wanted=f"a folder with a recording ({PATTERN})", got=self.path,
                remedy="Check the path; RecordingSampler makes recordings.")  # fmt: skip
        for file in self._files():
            about(file)

    def own_process(self) -> bool:
        """As good as: what is played needs no engine, so a run that sampled ahead can be replayed as one."""
        return True

    def _files(self) -> list[Path]:
        return sorted(Path(self.path).glob(PATTERN))

    def open(self, context: SamplerContext) -> SamplerSession:
        """Reads what was asked for, not the completions. Raises `ConfigError` for another model's vocabulary."""
        vocabulary = int(context.model.lm_head.weight.shape[0])
        for file in self._files():
            recorded = about(file)["vocabulary"]
            require(recorded == vocabulary, "RecordedSampler.path", wanted=f"a recording of a model with {vocabulary} tokens",
                    got=recorded, remedy="Give the model and tokenizer that were recorded.")  # fmt: skip
        return _RecordedSession(context, [call for file in self._files() for call in calls(file)], self.path)


class _RecordedSession(SamplerSession):
    """See `RecordedSampler`."""

    def __init__(self, context: SamplerContext, recorded: Sequence[Call], path: str) -> None:
        self._context, self._path, self._version = context, path, 0
        self._by_key: dict[Key, list[Call]] = {}
        for call in recorded:
            for prompt in call.prompts:
                self._by_key.setdefault((call.version, call.seed, prompt), []).append(call)
        self._played: Counter[Key] = Counter()

    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        """The recorded completions. Raises `ConfigError` at once where the recording does not fit."""
        wanted: dict[int, tuple[Call, set[str]]] = {}
        for prompt in prompts:
            call = self._call(prompt, num_completions, params, seed)
            wanted.setdefault(id(call), (call, set()))[1].add(prompt.id)
        self._played.update((self._version, seed, prompt.id) for prompt in prompts)
        return self._play(list(wanted.values()), len(prompts) * num_completions)

    def _call(self, prompt: Prompt, num_completions: int, params: SamplingParams, seed: int) -> Call:
        """Where the prompt's completions are, after everything was compared."""
        key = (self._version, seed, prompt.id)
        found, played = self._by_key.get(key, []), self._played[key]
        if played >= len(found):
            got = f"{len(found)}, all played" if found else f"none; it has {self._contents()}"
            raise ConfigError(
                f"the recording {self._path}", got=got,
                wanted=f"completions of prompt {prompt.id}, version {self._version}, seed {seed}",
                remedy="Give the config and data that were recorded, and no more steps.",
            )  # fmt: skip
        call, asked = found[played], plain(params)
        other = [f"sampling.{name}={value}" for name, value in call.params.items() if asked.get(name) != value]
        if call.num_completions != num_completions:
            other.append(f"completions_per_prompt={call.num_completions}")
        if other:
            now = [f"sampling.{name}={value}" for name, value in asked.items() if call.params.get(name) != value]
            raise ConfigError(f"the recording {self._path}", wanted=", ".join(other) + ", as recorded",
                              got=", ".join(now) or str(num_completions), remedy="Set them back, or sample anew.")  # fmt: skip
        require(call.prompts[prompt.id] == fingerprint(prompt), f"the recording {self._path}", got="other tokens",
                wanted=f"the tokens that prompt {prompt.id} had then", remedy="Use the same template and data.")  # fmt: skip
        return call

    def _contents(self) -> str:
        versions, seeds = ({key[place] for key in self._by_key} for place in (0, 1))
        if not versions:
            return "no finished call"
        prompts = len({key[2] for key in self._by_key})
        return f"{prompts} prompts, versions {min(versions)} to {max(versions)}, {len(seeds)} seeds"

    def _play(self, wanted: list[tuple[Call, set[str]]], total: int) -> Generator[Completion, None, None]:
        done = 0
        for call, ids in wanted:
            for completion in call.completions():
                if completion.prompt_id in ids:
                    done += 1
                    yield completion
                    if self._context.tick is not None:
                        self._context.tick(done, total)

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Of the model that is trained now, temperature 1: a recording has no weights."""
        return sequence_logprobs(self._context.model, token_ids)

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        """From now on, completions recorded under `version`; the weights are read and not used."""
        self._version = version
        return counted(version, weights)

    def close(self) -> None:
        """Nothing to free."""
