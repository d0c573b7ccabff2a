"""From the parts of a run to its plan. No weights, no network, no data but prompt lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from delta_lightning.models.adapted import attached
from delta_lightning.models.scorer import HEAD_BUDGET
from delta_lightning.planning.dry import DryModel, Peaks
from delta_lightning.planning.flops import Shape, UpdateFlops, body_flops, head_flops, update_flops
from delta_lightning.planning.kept import OptimizerCost, Weights, optimizer_cost
from delta_lightning.planning.machine import Machine
from delta_lightning.planning.memory import Demand, Memory, hidden_cache, hidden_itemsize, memory_of, prefill_pass
from delta_lightning.planning.page import Work, gib
from delta_lightning.planning.rollouts import StepSizes
from delta_lightning.planning.sums import Sums
from delta_lightning.planning.trial import CreditCost, credit_cost
from delta_lightning.samplers import HFSampler, VLLMSampler
from delta_lightning.samplers.engine import PREFILL_TOKENS
from delta_lightning.trainer.cache import Place
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.types import Need

ENTROPIES = frozenset({Need.ENTROPY, Need.SUM_P_SQUARED})
DTYPES = {2: torch.bfloat16, 4: torch.float32, 8: torch.float64}


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens of a prompt and of a completion: `mean` ones are expected, `most` the worst case."""

    prompt_mean: int
    prompt_most: int
    completion_mean: int
    completion_most: int


class Planned:
    """A run as far as it can be told beforehand.

    Args:
        module: holds the parts. machine: where it is to run. lengths: of prompts and completions.
        tick: shows (what, done, total).
    """

    def __init__(self, module: PolicyModule, machine: Machine, lengths: Lengths, tick: Callable[[str, int, int], None]) -> None:
        self.module, self.lengths, self._tick = module, lengths, tick
        dtype: torch.dtype = getattr(torch, getattr(module.backbone, "dtype", "float32"))
        model = attached(module.backbone.meta().to(dtype), module.adapter)  # an adapter has a dtype of its own
        compute = machine.compute_bytes or dtype.itemsize
        self.machine = replace(machine, compute_bytes=compute)
        self.weights, self.shape = Weights.of(model), Shape.of(model)
        self.parameter_dtype, self.model_type = dtype, str(model.config.model_type)
        self.context = getattr(model.config, "max_position_embeddings", None)
        kernel = module.backbone.attention_kernel()
        model.config._attn_implementation = "eager" if kernel == "eager" else "sdpa"
        self.attention = kernel
        self.optimizer: OptimizerCost | None = optimizer_cost(module.make_optimizer, trained_dtype(model))
        self.credit: CreditCost = credit_cost(
            module.parts.credit, hidden=self.shape.hidden, vocabulary=self.shape.vocabulary, dtype=DTYPES[compute],
            copies_head=machine.sharded,
        )  # fmt: skip
        self._dry = DryModel(
            model, dtype=DTYPES.get(machine.compute_bytes), activation_checkpointing=module.activation_checkpointing,
            head_budget_bytes=HEAD_BUDGET,
            sums=Sums(ranks=machine.ranks, itemsize=machine.reduce_bytes) if machine.sharded else None,
        )  # fmt: skip
        self._passes: dict[Any, Peaks] = {}

    def sizes(self, *, worst: bool) -> StepSizes:
        """Of a rollout step."""
        lengths, plan = self.lengths, self.module.plan
        prompt = lengths.prompt_most if worst else lengths.prompt_mean
        new = lengths.completion_most if worst else lengths.completion_mean
        if self.context is not None:
            new = max(1, min(new, self.context - prompt))
        return StepSizes.of(
            plan.cut, completions=plan.completions, ranks=self.machine.ranks, prompt_tokens=prompt, completion_tokens=new,
            attention=self.attention,
        )  # fmt: skip

    def memory(self, sizes: StepSizes) -> Memory:
        """Of each device."""
        return memory_of(self.demand(sizes))

    def demand(self, sizes: StepSizes) -> Demand:
        """Everything that memory follows."""
        parts, sampler = self.module.parts, self.module.sampler
        hf = sampler if isinstance(sampler, HFSampler) else None
        rollout, update = parts.rollout_needs(), parts.update_needs()
        ranks_prompts = -(-sizes.prompts // sizes.ranks)
        prefill = prefill_pass(sizes.prompt_tokens, ranks_prompts, PREFILL_TOKENS)
        one = sizes.largest
        accumulating = sizes.micro_batches > 1
        return Demand(
            weights=self.weights, shape=self.shape, optimizer=self.optimizer, machine=self.machine, sizes=sizes,
            scoring=self._pass("scoring", (one, bool(rollout & ENTROPIES)),
                               lambda: self._dry.score(one, entropy=bool(rollout & ENTROPIES))),
            updating=self._pass("an update", (one, bool(update & ENTROPIES), accumulating),
                                lambda: self._dry.update(one, entropy=bool(update & ENTROPIES), accumulating=accumulating)),
            prefill=None if hf is None else self._pass("prefill", (prefill, "prefill"), lambda: self._dry.score(prefill)),
            credit=self.credit, cache=self.module.plan.cache, caches_hidden=Need.HIDDEN in rollout,
            reference=Need.REFERENCE in rollout and self.module.adapter is None,
            sampler=self._engine(),
            sampler_sleeps=bool(getattr(sampler, "sleep", False)),
            sampler_rows=0 if hf is None else hf.max_rows,
            sampler_cache=0 if hf is None else int(hf.cache_gib * 2**30),
        )  # fmt: skip

    def work(self, sizes: StepSizes, rate: float | None) -> Work:
        """FLOPs of all ranks; seconds at `rate` FLOPs per second of each, all FLOPs counted, the repeated ones too."""
        lengths, trained = [sizes.length] * sizes.sequences, sizes.sequences * sizes.completion_tokens
        once = body_flops(self.shape, lengths) + head_flops(self.shape, trained)
        rollout = self.module.parts.rollout_needs()
        reference = once if Need.REFERENCE in rollout else 0
        again = once * self._recomputed(sizes)
        update: UpdateFlops = update_flops(
            self.shape, lengths, trained, activation_checkpointing=self.module.activation_checkpointing
        )
        passes, updates = once + reference + again, update.model + update.repeated
        speed = None if rate is None else rate * self.machine.ranks
        return Work(
            scoring=passes, reference=reference, updates=updates, repeated=update.repeated,
            seconds_scoring=None if speed is None else passes / speed,
            seconds_updates=None if speed is None else updates / speed,
        )  # fmt: skip

    def _recomputed(self, sizes: StepSizes) -> int:
        """Whether hidden states are computed again for credit: at least once, then at each reading."""
        rollout = self.module.parts.rollout_needs()
        return int(Need.HIDDEN in rollout and hidden_cache(self.demand(sizes))[0] is Place.RECOMPUTED)

    def notes(self, sizes: StepSizes) -> list[str]:
        """Lines for people."""
        rollout, found = self.module.parts.rollout_needs(), []
        demand = self.demand(sizes)
        place, cached = hidden_cache(demand)
        if Need.HIDDEN in rollout and place is Place.RECOMPUTED:
            narrower = ", or use --model.cache.dtype=bfloat16" if hidden_itemsize(demand) > 2 else ""
            found.append("hidden states fit neither cache budget at worst: each reading of them is a forward pass; raise "
                         f"model.cache.host_gib or device_gib{narrower}")  # fmt: skip
        elif place is Place.HOST:
            found.append(f"hidden states go to main memory at worst ({gib(cached)} GiB a rank): model.cache.device_gib is less")
        if sizes.idle:
            found.append(f"{sizes.idle} of {sizes.updates * sizes.ranks} (update, device) pairs have no sequence: those "
                         "devices wait; raise prompts_per_step or lower updates_per_step")  # fmt: skip
        if self.optimizer is None:
            found.append("the optimiser does not run on a CPU: its state is taken as two float32 moments")
        if not isinstance(self.module.sampler, HFSampler | VLLMSampler):
            found.append(f"{type(self.module.sampler).__name__} samples outside of these devices: its memory is not counted")
        if self.attention not in ("sdpa", "eager"):
            found.append(f"{self.attention} is counted as a fused kernel without a mask")
        return found

    def contradictions(self, memory: Memory) -> list[str]:
        """What only the plan can see."""
        room, lengths, found = self.context, self.lengths, []
        if room is not None and lengths.prompt_most >= room:
            found.append(f"data.max_prompt_tokens: wanted at most {room - 1}, since the model reads {room} tokens, got "
                         f"{lengths.prompt_most}. Lower it.")  # fmt: skip
        if room is not None and lengths.completion_most >= room:
            found.append(f"model.sampling.max_new_tokens: wanted at most {room - 1}, since the model reads {room} tokens, got "
                         f"{lengths.completion_most}. Lower it, or raise the model's context.")  # fmt: skip
        have = self.machine.memory
        if have is not None and memory.bytes > have:
            found.append(f"memory: wanted at most {gib(have)} GiB a device, got {gib(memory.bytes)} in the worst case, "
                         f"{gib(memory.bytes - have)} too many, in the phase '{memory.peak.name}'. "
                         f"{self._remedy(memory)}")  # fmt: skip
        return found

    def _remedy(self, memory: Memory) -> str:
        stays, peak = sum(memory.stays.values()), memory.peak.bytes
        module, machine = self.module, self.machine
        tried = []
        if stays > peak:
            if machine.ranks > 1 and not machine.sharded:
                tried.append("--trainer.strategy=fsdp2")
            elif not machine.offload and machine.sharded:
                tried.append("more devices, or --trainer.strategy.cpu_offload=true")
            if module.adapter is None:
                tried.append("--model.adapter=LoRA")
        if memory.peak.name in ("update", "scoring", "credit"):
            if not module.activation_checkpointing:
                tried.append("--model.activation_checkpointing=true")
            rows = self.sizes(worst=True).largest.rows
            if rows > 1:
                tried.append("a smaller model.tokens_per_micro_batch")
        if memory.peak.name == "sampling":
            tried.append("a smaller model.sampler.cache_gib or max_rows")
        if machine.sharded and machine.compute_bytes == 4:
            tried.append("--trainer.strategy.compute_dtype=bfloat16")
        return f"Try {', '.join(tried)}." if tried else "Shorten sampling.max_new_tokens, or take larger devices."

    def _engine(self) -> int:
        """Bytes of an engine beside the policy on its device: vLLM fills its share of a GPU, elsewhere weights and cache."""
        sampler = self.module.sampler
        if not isinstance(sampler, VLLMSampler):
            return 0
        if self.machine.memory is not None and self.machine.gpu:
            return round(sampler.memory_share * self.machine.memory)
        size = {"auto": self.parameter_dtype.itemsize, "float32": 4}.get(sampler.dtype, 2)
        return self.weights.count * size // sampler.tensor_parallel + int(sampler.cache_gib * 2**30)

    def _pass(self, name: str, key: Any, run: Callable[[], Peaks]) -> Peaks:
        if key not in self._passes:
            self._tick(f"{name} on tensors without contents", len(self._passes), len(self._passes) + 1)
            self._passes[key] = run()
        return self._passes[key]


def trained_dtype(model: Any) -> torch.dtype:
    """Of the parameters that an optimiser gets: all, or an adapter's, which are alike."""
    found: torch.dtype = next(parameter.dtype for parameter in model.parameters() if parameter.requires_grad)
    return found
