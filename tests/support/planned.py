"""A module of any size and its plan, and the same phases on real tensors, metered."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Delta
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean
from delta_lightning.models import Padded, RowLayout, Tiny
from delta_lightning.models.adapted import attached
from delta_lightning.models.adapter import Adapter
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.recomputing import recompute_layers
from delta_lightning.models.scorer import Scorer
from delta_lightning.planning.machine import Machine
from delta_lightning.planning.meter import LiveBytes
from delta_lightning.planning.plan import Lengths, Planned
from delta_lightning.samplers import HFSampler
from delta_lightning.trainer.buffer import Buffer, totals_of
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.gradients import let_go
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.rollouts import RolloutTools
from delta_lightning.trainer.step import credited, micro_batch_loss, score_batch
from delta_lightning.trainer.verdicts import VerdictPolicy
from delta_lightning.types import RolloutBatch, SamplingParams
from delta_lightning.verifiers.exact import ExactMatch
from support.engines import InlineJudge, ScriptedSession, parity

Cut = Callable[[Callable[[], Any]], Any]  # from what loads a model to the model


def _uncut(load: Callable[[], Any]) -> Any:
    return load()


@dataclass(frozen=True, kw_only=True)
class Sized(Tiny):
    """A tiny model with any vocabulary."""

    vocabulary: int = 1000

    def config(self) -> Any:
        config = super().config()
        config.vocab_size = self.vocabulary
        return config


@dataclass(frozen=True, kw_only=True)
class Case:
    """What may vary between plans that are held to what was measured."""

    backbone: Sized
    recompute: bool = False
    micro: int = 2
    prompts: int = 4
    completions: int = 4
    prompt_tokens: int = 20
    completion_tokens: int = 100
    layout: RowLayout = field(default_factory=Padded)
    credit: CreditAssigner = field(default_factory=Delta)
    cache: HiddenCache = field(default_factory=HiddenCache)
    penalties: tuple[Any, ...] = ()
    adapter: Adapter | None = None
    ranks: int = 1  # each with `prompts` prompts

    def module(self) -> PolicyModule:
        return PolicyModule(
            backbone=self.backbone, sampler=HFSampler(), verifier=ExactMatch(), advantage=GroupStandardised(),
            credit=self.credit, loss=ClippedSurrogate(), weighting=Constant(), reduction=TokenMean(),
            correction=NoCorrection(), penalties=list(self.penalties),
            adapter=self.adapter, prompts_per_step=self.prompts * self.ranks,
            completions_per_prompt=self.completions, updates_per_step=1, micro_batches=self.micro, layout=self.layout,
            cache=self.cache, activation_checkpointing=self.recompute,
            sampling=SamplingParams(max_new_tokens=self.completion_tokens),
        )  # fmt: skip

    def planned(self, machine: Machine = Machine()) -> Planned:  # noqa: B008
        lengths = Lengths(
            prompt_mean=self.prompt_tokens, prompt_most=self.prompt_tokens, completion_mean=self.completion_tokens,
            completion_most=self.completion_tokens,
        )  # fmt: skip
        return Planned(self.module(), machine, lengths, lambda what, done, total: None)

    def batch(self) -> RolloutBatch:
        rows, width = self.prompts * self.completions, self.prompt_tokens + self.completion_tokens
        generator = torch.Generator().manual_seed(0)
        mask_BT = torch.zeros(rows, width, dtype=torch.bool)
        mask_BT[:, self.prompt_tokens :] = True
        values_BT = -torch.rand(rows, width, generator=generator) * mask_BT
        rewards_B = torch.arange(rows) % 2 * 1.0
        return RolloutBatch(
            token_ids_BT=torch.randint(self.backbone.vocabulary, (rows, width), generator=generator),
            attention_mask_BT=torch.ones(rows, width, dtype=torch.bool), loss_mask_BT=mask_BT,
            behaviour_logprobs_BT=values_BT, raw_logprobs_BT=values_BT.clone(), rewards_B=rewards_B,
            verdict_rewards_B=rewards_B, components_BR=torch.zeros(rows, 0), valid_B=torch.ones(rows, dtype=torch.bool),
            truncated_B=torch.zeros(rows, dtype=torch.bool), group_ids_B=torch.arange(rows) // self.completions,
            sequence_ids_B=torch.arange(rows), versions_B=torch.zeros(rows, dtype=torch.int64),
            prompt_lengths_B=torch.full((rows,), self.prompt_tokens), component_names=(),
        )  # fmt: skip


class Meter(LiveBytes):  # type: ignore[misc]
    """Sees storages that are resized too, as fully_shard does with parameters that it gathers again."""

    def __enter__(self) -> Meter:
        self._patch = pytest.MonkeyPatch()
        plain = torch.UntypedStorage.resize_

        def resized(storage: torch.UntypedStorage, size: int) -> Any:
            before = storage.nbytes()
            out = plain(storage, size)
            if storage._cdata in self._counted:
                self._resized(storage, size - before)
            return out

        self._patch.setattr(torch.UntypedStorage, "resize_", resized)
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._patch.undo()

    def _resized(self, storage: torch.UntypedStorage, more: int) -> None:
        key = storage._cdata
        self._counted[key] = weakref.ref(storage, self._freed(key, storage.nbytes()))
        self.live += more
        self.peak = max(self.peak, self.live)


def storages_of(tensor: Tensor) -> list[torch.UntypedStorage]:
    """Of a tensor, or of this rank's part of it."""
    return [(tensor.to_local() if isinstance(tensor, DTensor) else tensor).untyped_storage()]


@contextmanager
def metered(*known: Any) -> Iterator[LiveBytes]:
    """A meter that does not count the tensors of the given models, optimisers and structures."""
    with Meter([tensor for value in known for tensor in tensors_of(value)]) as meter:
        yield meter


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, torch.nn.Module):
        return [*value.parameters(), *value.buffers()]
    if isinstance(value, torch.optim.Optimizer):
        return [one for state in value.state.values() for one in state.values() if isinstance(one, Tensor)]
    return [tensor for one in vars(value).values() if one is not None and not isinstance(one, tuple | str | int)
            for tensor in tensors_of(one)]  # fmt: skip


def measured(case: Case, cut: Cut = _uncut) -> dict[str, int]:
    """Bytes by phase of the second optimiser step, as `PolicyModule` makes it, and of what stays. `cut` may shard the model."""
    torch.set_num_threads(1)
    module = case.module()
    model = cut(lambda: attached(case.backbone.load(LoadContext()), case.adapter))
    if case.recompute:
        recompute_layers(model)
    optimizer = module.make_optimizer([p for p in model.parameters() if p.requires_grad])
    _update(case, module, model, optimizer)  # moments are there from now on
    found = _update(case, module, model, optimizer)
    kept = [*model.parameters(), *tensors_of(optimizer), *(p.grad for p in model.parameters() if p.grad is not None)]
    sizes = {one._cdata: one.nbytes() for tensor in kept for one in storages_of(tensor)}
    return found | {"stays": sum(sizes.values())}


def _update(case: Case, module: PolicyModule, model: Any, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    ranks, parts, plan, book = Ranks.current(), module.parts, module.plan, MetricBook()
    tools = RolloutTools(
        session=ScriptedSession(), judge=InlineJudge(parity), policy=VerdictPolicy(), ranks=ranks, clock=PhaseClock(),
        progress=Progress(),
    )  # fmt: skip
    scorer = Scorer(model=model, layout=case.layout)
    batch = case.batch()
    per = -(-batch.num_sequences // case.micro)
    micro = [slice(start, min(start + per, batch.num_sequences)) for start in range(0, batch.num_sequences, per)]
    found = {}
    with metered(model, optimizer, batch) as meter:
        scored = score_batch(0, batch, micro, parts, plan, scorer, tools, book, needs=parts.rollout_needs())
        found["scoring"] = meter.restart()
        experience = credited(scored, parts.credit)
        found["credit"] = meter.restart()
    del scored
    buffer = Buffer(step=0, experience=experience, micro=micro, totals=totals_of(experience, micro, per_update=case.micro,
                                                                                ranks=ranks))  # fmt: skip
    with metered(model, optimizer, experience, batch) as meter:
        for index in range(len(micro)):
            one = buffer.micro_batch(index)
            loss, scores = micro_batch_loss(one.experience, one.totals, parts, scorer)
            loss.backward()
            del loss, scores, one
        if ranks.size > 1:
            time.sleep(0.2)  # gloo's threads let go of what they summed a moment after the ranks go on
        found["update"] = meter.restart()
        optimizer.step()
        found["optimiser step"] = meter.peak
    let_go(model)
    return found


def ratios(case: Case) -> dict[str, float]:
    """Planned over measured bytes, by phase."""
    return over(measured(case), case.planned())


def over(seen: dict[str, int], planned: Planned) -> dict[str, float]:
    memory = planned.memory(planned.sizes(worst=False))
    said = {phase.name: phase.bytes for phase in memory.phases}
    said["stays"] = sum(size for name, size in memory.stays.items() if name != "rollout batch")
    return {name: said[name] / size for name, size in seen.items()}


def wider(case: Case, **changes: Any) -> Case:
    return replace(case, backbone=replace(case.backbone, **changes))
