"""From one rank's whole model to every rank's shards, a tensor at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import Shard, distribute_tensor

from delta_lightning.errors import RunError
from delta_lightning.models.adapted import adapter_of, attached, base_parameters
from delta_lightning.models.adapter import Adapter
from delta_lightning.models.sharding import Sharding, device_of, sharding_of
from delta_lightning.models.weight_files import WeightFiles

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a rank without the model needs to build its empty twin: small, picklable."""

    config: Any
    dtype: torch.dtype
    buffers: dict[str, Tensor]
    generation: Any
    adapter: Adapter | None = None


def spread(load: Callable[[], Any], sharding: Sharding, share: Callable[[Any], Any]) -> Any:
    """The model that `load` gives on rank 0, cut over all ranks; the others never hold more of it than a layer.

    Rank 0 lets its whole copy go bit by bit.

    Args:
        load: called on rank 0 only; gives a causal LM in main memory.
        sharding: how it is cut.
        share: gives every rank rank 0's object. Collective.

    Raises:
        RunError: on the other ranks, when `load` failed on rank 0.
    """
    mesh = sharding.mesh
    source, plan = None, None
    try:
        if mesh.get_rank() == 0:
            source = load()
            plan = _plan_of(source)
    finally:  # also when it failed: the others wait
        plan = share(plan)
    if plan is None:
        raise RunError("the model could not be loaded on rank 0, which says why")
    if mesh.size() == 1:
        return sharding.apply(source)
    model = _empty(plan, sharding)
    values = {} if source is None else dict(source.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            local = torch.empty(parameter.shape, dtype=parameter.dtype, device=device_of(model))
            if source is not None:
                local.copy_(values[name])
                values[name].data = local.new_empty(0)  # rank 0's whole copy goes as the shards come
            parameter.to_local().copy_(distribute_tensor(local, mesh, [Shard(0)]).to_local())
    return model


@torch.no_grad()
def spread_files(files: WeightFiles, sharding: Sharding, adapter: Adapter | None) -> Any:
    """The model in the files, cut over all ranks, with the adapter inserted; its own values are drawn afterwards.

    Each rank reads the rows that it holds, and holds at most one tensor's rows twice: no rank has the whole model at any time.
    Not collective: each rank works by itself.

    Raises:
        ConfigError: the files hold a head that is not the embedding, though the config says that the two are tied.
    """
    config = files.config
    plan = _Plan(
        config=config, dtype=files.dtype, buffers=_computed_buffers(files), generation=files.generation, adapter=adapter
    )
    model = _empty(plan, sharding)
    shards = {base: shard for base, _, shard in base_parameters(model)}
    if config.tie_word_embeddings and HEAD in files.files:
        shards[HEAD] = shards[EMBEDDING]
    wanted = {name: _rows(value, sharding.mesh) for name, value in shards.items()}
    first = None  # rows of embedding or head, whichever came first
    for name, rows in files.rows({name: rows for name, rows in wanted.items() if rows.stop > rows.start}):
        if HEAD in wanted and shards[name] is shards[HEAD]:
            first = rows if first is None else first
            if not torch.equal(first, rows):
                raise files.untied()
        shards[name].to_local().copy_(rows)
    return model


def _rows(shard: Any, mesh: Any) -> slice:
    """The rows of a parameter that this rank holds: ranks take ceil(rows / ranks) each, the last ones fewer or none."""
    count = shard.shape[0]
    each = -(-count // mesh.size())
    start = min(mesh.get_local_rank() * each, count)
    stop = min(start + each, count)
    assert shard.to_local().shape[0] == stop - start, "torch cut the parameter in another way"
    return slice(start, stop)


def _computed_buffers(files: WeightFiles) -> dict[str, Tensor]:
    """Buffers that a model computes when it is built, such as rotary frequencies, without building the model."""
    model = _unmade(files.config, files.dtype)
    owners = [module for module in model.modules() if any(True for _ in module.buffers(recurse=False))]
    for module in owners:
        module.to_empty(device="cpu", recurse=False)
        for buffer in module.buffers(recurse=False):
            buffer.fill_(torch.nan if buffer.is_floating_point() else -1)
        model._init_weights(module)
    buffers = dict(model.named_buffers())
    unknown = [name for name, buffer in buffers.items() if not buffer.isfinite().all()]
    assert not unknown, f"transformers left {unknown[0]} without a value"
    return buffers


@torch.no_grad()
def twin(model: Any) -> Any:
    """A copy of a sharded model, cut in the same way: each rank copies its own shards."""
    sharding = sharding_of(model)
    assert sharding is not None
    copy = _empty(_plan_of(model), sharding)
    for ours, theirs in zip(copy.parameters(), model.parameters(), strict=True):
        ours.to_local().copy_(theirs.to_local())
    return copy


def _plan_of(model: Any) -> _Plan:
    buffers = {name: buffer.detach().cpu() for name, buffer in model.named_buffers()}
    return _Plan(
        config=model.config, dtype=model.lm_head.weight.dtype, buffers=buffers, generation=model.generation_config,
        adapter=adapter_of(model),
    )  # fmt: skip


def _unmade(config: Any, dtype: torch.dtype) -> Any:
    """The model on the meta device, in evaluation mode."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=config._attn_implementation).eval()


def _empty(plan: _Plan, sharding: Sharding) -> Any:
    """The model with uninitialised shards, and with the plan's buffers; no rank holds more than a layer of it.

    An adapter is inserted before the model is cut; `initialise` of `models/adapted.py` draws its values afterwards.
    """
    with torch.device("meta"):
        model = attached(_unmade(plan.config, plan.dtype), plan.adapter)
    sharding.apply(model)
    model.to_empty(device="cpu" if sharding.offload else sharding.mesh.device_type)
    if plan.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    model.generation_config = plan.generation or model.generation_config
    device = device_of(model)
    for name in [name for name, _ in model.named_buffers()]:
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, plan.buffers[name].to(device))
    return model
