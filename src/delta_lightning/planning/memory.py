"""Bytes of each device, phase by phase: what stays, and what comes on top."""

from __future__ import annotations

from dataclasses import dataclass, field

from delta_lightning.planning.dry import Pass, Peaks
from delta_lightning.planning.flops import Shape
from delta_lightning.planning.kept import OptimizerCost, Weights
from delta_lightning.planning.machine import Machine
from delta_lightning.planning.rollouts import StepSizes
from delta_lightning.planning.trial import CreditCost
from delta_lightning.samplers.segments import room_for
from delta_lightning.trainer.cache import HiddenCache, Place

ADAMW = 8.0  # bytes per element of an optimiser that could not be tried: two moments in float32
LOGITS = 3  # [n, V] of float32 that a draw of the next tokens holds at a time
POSITION = 30  # bytes per position of a rollout batch: ids 8, masks 2, five float32


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of a rollout step: its name, and bytes by what they are, beyond what stays."""

    name: str
    parts: dict[str, int]

    @property
    def bytes(self) -> int:
        """All of them."""
        return sum(self.parts.values())


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device. `host` is main memory of one rank, where something is kept there on purpose."""

    stays: dict[str, int]
    phases: list[Phase]
    host: dict[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.bytes)

    @property
    def bytes(self) -> int:
        """What stays, and the most that a phase adds."""
        return sum(self.stays.values()) + self.peak.bytes


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Everything that memory follows.

    Attributes:
        weights, shape: of the model. optimizer: None if it could not be tried. sizes: of the step.
        scoring, updating: of its largest micro-batch. prefill: of the sampler's passes over prompts, if the policy samples.
        credit: what it takes beside the cache. caches_hidden: a part reads hidden states. reference: a frozen copy is kept.
        sampler: bytes of an engine of its own on the device. sampler_sleeps: it gives them back while the model is scored and
            trained. sampler_rows: most rows that the policy decodes at a time.
        sampler_cache: their most bytes of keys and values.
    """

    weights: Weights
    shape: Shape
    optimizer: OptimizerCost | None
    machine: Machine
    sizes: StepSizes
    scoring: Peaks
    updating: Peaks
    prefill: Peaks | None
    credit: CreditCost
    cache: HiddenCache
    caches_hidden: bool
    reference: bool
    sampler: int
    sampler_sleeps: bool
    sampler_rows: int
    sampler_cache: int


def memory_of(demand: Demand) -> Memory:
    """The whole account.

    Stays, over R ranks if sharded (else R = 1): parameters, their bytes / R; the optimiser's state per element times the
    trained elements / R; the reference policy's parameters over all ranks, whatever the strategy; under `ddp` the buckets in
    which it sums gradients. Gradients of the trained parameters, their bytes / R, are there from the first backward pass of
    an update to the end of its optimiser step.
    """
    d, machine, weights = demand, demand.machine, demand.weights
    cut = machine.ranks if machine.sharded else 1
    state = ADAMW if d.optimizer is None else d.optimizer.state
    shards = {"parameters": weights.total // cut, "optimiser state": round(state * weights.trained_count / cut)}
    gradients = {"gradients": weights.trained // cut}
    stays, host, gradients = ({}, shards | gradients, {}) if machine.offload else (shards, {}, gradients)
    if machine.ranks > 1 and not machine.sharded:
        stays["buckets of gradients"] = weights.trained
    if d.reference:
        stays["reference policy"] = weights.total // machine.ranks
    if d.sampler and not d.sampler_sleeps:
        stays["sampler's engine"] = d.sampler
    stays["rollout batch"] = POSITION * d.sizes.rank_sequences * d.sizes.length
    place, cached = hidden_cache(d)
    if place is Place.HOST:
        host["hidden states"] = cached
    held = {"hidden states (cache)": cached} if place is Place.DEVICE else {}
    gathered = _gathered(d)
    scoring = gathered | _scoring(d)
    again = scoring if place is Place.RECOMPUTED and d.caches_hidden else {}
    phases = [
        Phase(name="sampling", parts=_sampling(d)),
        Phase(name="scoring", parts=scoring | held),
        Phase(
            name="credit",
            parts=again | held | {"credit": d.credit.bytes(d.sizes.rank_trained, d.sizes.largest.trained, d.shape.hidden)},
        ),
        Phase(name="update", parts=gathered | _update(d, gradients)),
        Phase(name="optimiser step", parts=gradients | {"temporaries": _step(d) // cut}),
        Phase(
            name="weight sync",
            parts={"tensors on their way": 2 * 4 * weights.widest if d.machine.sharded else 0}
            | ({"sampler's engine": d.sampler} if d.sampler_sleeps else {}),
        ),
    ]
    return Memory(stays=stays, phases=phases, host=host)


def hidden_cache(d: Demand) -> tuple[Place, int]:
    """Where N hidden states of width D go (`HiddenCache.place`), and their bytes: N D times the bytes of an element."""
    if not d.caches_hidden:
        return Place.RECOMPUTED, 0
    wanted = d.sizes.rank_trained * d.shape.hidden * hidden_itemsize(d)
    if wanted <= d.cache.device_gib * 2**30:
        return Place.DEVICE, wanted
    return (Place.HOST, wanted) if wanted <= d.cache.host_gib * 2**30 else (Place.RECOMPUTED, 0)


def hidden_itemsize(d: Demand) -> int:
    """Bytes of an element of a hidden state, as it is cached."""
    return {"model": d.machine.compute_bytes, "bfloat16": 2, "float32": 4}[d.cache.dtype]


def _gathered(d: Demand) -> dict[str, int]:
    """Whole parameters of a sharded model, b bytes each: embedding and head, and two layers, one being fetched ahead.

    Without resharding all layers stay.
    """
    if not d.machine.sharded:
        return {}
    weights = d.weights
    layers = 2 * weights.layer if d.machine.reshard else weights.count - weights.root
    return {"gathered parameters": d.machine.compute_bytes * (weights.root + layers)}


def _scoring(d: Demand) -> dict[str, int]:
    """A forward pass; or, before a sharded one has any activations, the copy of which embedding and head are made."""
    root = d.machine.compute_bytes * d.weights.root if d.machine.sharded else 0
    if root > d.scoring.forward:
        return {"embedding and head, copied": root}
    return {"activations and head chunk": d.scoring.forward}


def _update(d: Demand, gradients: dict[str, int]) -> dict[str, int]:
    """The larger of both halves of a micro-batch, beside the gradients of earlier ones.

    Those that a lone micro-batch makes on a model that is not sharded are part of what it needs (`DryModel.update`), as are
    those of a sharded one before they are summed. Where micro-batches add up in whole gradients, these are in the dtype of
    the sum.
    """
    peak = max(d.updating.forward, d.updating.backward)
    kept = min(d.updating.kept, peak)
    there = {} if d.sizes.micro_batches == 1 and not d.machine.sharded else gradients
    if d.machine.sharded and d.machine.unsharded_gradients:
        there = there | {"gradients before their sum over ranks": d.machine.reduce_bytes * d.weights.trained_count}
    return there | {"activations kept for the backward pass": kept, "head chunk, layer at work, its gradients": peak - kept}


def _step(d: Demand) -> int:
    """An optimiser's temporaries: of its largest parameter, on GPUs (where it updates them together) of all."""
    per_element = 4.0 if d.optimizer is None else d.optimizer.step
    return round(per_element * (d.weights.trained_count if d.machine.gpu else d.weights.largest))


def _sampling(d: Demand) -> dict[str, int]:
    """The policy's own decoding; nothing where an engine of its own samples.

    Keys and values: rows x columns x 2 layers x (width of keys), with room for columns to come, doubled while they are copied;
    prefill: a pass over as many prompts as fit; draws: the logits of a chunk of rows. Sharded models are whole meanwhile.
    """
    if d.prefill is None:
        return {"sampler's engine": d.sampler if d.sampler_sleeps else 0}
    rows = min(d.sampler_rows, d.sizes.rank_sequences)
    columns = room_for(d.sizes.length)
    per_column = 2 * len(d.shape.windows) * d.shape.key_value_width * d.machine.compute_bytes
    cache = min(rows * columns * per_column, d.sampler_cache)
    logits = min(rows * d.shape.vocabulary * 4, 1 << 28) * LOGITS
    whole = {"gathered parameters": d.weights.count * d.machine.compute_bytes} if d.machine.sharded else {}
    return whole | {"keys and values, twice while copied": 2 * cache, "prefill or draws": max(d.prefill.forward, logits)}


def prefill_pass(prompt_tokens: int, prompts: int, budget: int) -> Pass:
    """Prompts that one forward pass over them takes: at most `budget` tokens, one prompt at least."""
    return Pass(rows=max(1, min(prompts, budget // max(1, prompt_tokens))), columns=max(2, prompt_tokens), trained=1)
