"""Checkpoints of a policy with an adapter: they hold what is trained; the base comes from the backbone again, and is the same.

`keep_trained_only` leaves the base out of the policy's state, whoever asks for it: a file, or each rank's part of a folder.
`stamp` writes into a checkpoint what adapter it holds and what base it belongs to; `refuse_other_base` compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.models.adapted import adapter_of, base_parameters
from delta_lightning.models.adapter import Adapter
from delta_lightning.models.sharding import sharding_of
from delta_lightning.trainer.ranks import Ranks

KEY = "delta_lightning_adapter"
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an element
SHOWN = 3


def keep_trained_only(policy: Any) -> Any:
    """From here on the state of a policy with an adapter is what is trained; loading it leaves the base alone."""
    if adapter_of(policy) is not None:
        policy.register_state_dict_post_hook(_drop_base)
        policy.register_load_state_dict_pre_hook(_fill_base)
    return policy


def _frozen(policy: Any) -> dict[str, Any]:
    return {name: value for name, value in policy.named_parameters(remove_duplicate=False) if not value.requires_grad}


def _drop_base(policy: Any, state: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    for name in _frozen(policy):
        state.pop(prefix + name, None)


def _fill_base(policy: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Adds the base's own values to a state that is loaded, and refuses one that has not all that is trained, or more."""
    wanted, found = set(policy.state_dict(prefix=prefix)), {name for name in state if name.startswith(prefix)}
    if wanted != found:
        raise RunError(
            f"the checkpoint's adapter has {len(found)} tensors, the policy's {len(wanted)}; the first that only one has "
            f"is {min(wanted ^ found)}"
        )
    state.update({prefix + name: value.detach() for name, value in _frozen(policy).items()})


def stamp(checkpoint: dict[str, Any], policy: Any) -> None:
    """Adds the adapter's options and the base's fingerprint, if the policy has an adapter. Collective."""
    adapter = adapter_of(policy)
    if adapter is not None:
        if "optimizer_states" in checkpoint:
            checkpoint["optimizer_states"] = [_numbered(state, policy) for state in checkpoint["optimizer_states"]]
        checkpoint[KEY] = {"adapter": options(adapter), "base": base_fingerprint(policy)}


def _numbered(optimizer: dict[str, Any], policy: Any) -> dict[str, Any]:
    """The state with parameters numbered as in the whole policy, which is how fsdp2 reads a file; others go by the order."""
    numbers = [number for number, parameter in enumerate(policy.parameters()) if parameter.requires_grad]
    given = [number for group in optimizer.get("param_groups", ()) for number in group["params"]]
    if given != list(range(len(numbers))):
        return optimizer
    groups = [{**group, "params": [numbers[one] for one in group["params"]]} for group in optimizer["param_groups"]]
    return {**optimizer, "state": {numbers[one]: kept for one, kept in optimizer["state"].items()}, "param_groups": groups}


def refuse_other_base(checkpoint: Mapping[str, Any], policy: Any) -> None:
    """Refuses a checkpoint whose adapter belongs to other weights than the policy's base. Raises `ConfigError`. Collective."""
    refuse_other_adapter(checkpoint.get(KEY), adapter_of(policy))
    if checkpoint.get(KEY) is None:
        return
    then, now = checkpoint[KEY]["base"], base_fingerprint(policy)
    changed = [name for name in {**then, **now} if list(then.get(name, ())) != list(now.get(name, ()))]
    if changed:
        more = ", ..." if len(changed) > SHOWN else ""
        raise ConfigError(
            "model.backbone", wanted="the base that the checkpoint's adapter was trained on",
            got=f"one in which {len(changed)} of {len(now)} tensors differ: {', '.join(changed[:SHOWN])}{more}",
            remedy="Give the backbone of that run (its weights, dtype and seed are in the run folder's config.yaml).",
        )  # fmt: skip


def refuse_other_adapter(stored: Mapping[str, Any] | None, adapter: Adapter | None) -> None:
    """Refuses a checkpoint of another adapter, or of none. `stored` is the checkpoint's entry `KEY`. Raises `ConfigError`."""
    then = None if stored is None else stored["adapter"]
    now = None if adapter is None else options(adapter)
    if then != now:
        raise ConfigError(
            "model.adapter", wanted=f"that of the checkpoint, {_shown(then)}", got=_shown(now),
            remedy="Resume with the same adapter, or begin a new run from that run's merged export.",
        )  # fmt: skip


def options(adapter: Adapter) -> dict[str, Any]:
    """Class and fields, as plain values that a checkpoint can hold."""
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(adapter).items()}  # type: ignore[call-overload]
    return {"class": f"{type(adapter).__module__}.{type(adapter).__qualname__}", **fields}


def _shown(given: Mapping[str, Any] | None) -> str:
    if given is None:
        return "none"
    fields = ", ".join(f"{name}={value}" for name, value in given.items() if name != "class")
    return f"{given['class'].rpartition('.')[2]}({fields})"


@torch.no_grad()
def base_fingerprint(policy: Any) -> dict[str, list[Any]]:
    """Dtype, shape and checksum of each tensor of the base; kept on the policy once taken. Collective where it is sharded.

    The checksum is the sum, modulo 2^64, of the elements' bits read as integers: exact, the same however the tensor is cut.
    """
    kept: dict[str, list[Any]] | None = getattr(policy, "delta_base_fingerprint", None)
    if kept is None:
        frozen = {base: value for base, _, value in base_parameters(policy)}
        sums = torch.stack([_checksum(value.to_local() if hasattr(value, "to_local") else value) for value in frozen.values()])
        if sharding_of(policy) is not None:
            sums = Ranks.current().all_sum(sums)
        kept = {
            name: [str(value.dtype), list(value.shape), number]
            for (name, value), number in zip(frozen.items(), sums.tolist(), strict=True)
        }
        policy.delta_base_fingerprint = kept
    return kept


def _checksum(value: Tensor) -> Tensor:
    return value.contiguous().view(INTEGERS[value.element_size()]).sum(dtype=torch.int64)
