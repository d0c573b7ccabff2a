"""Ranks and devices as a plan knows them: nothing here asks a machine."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.errors import ConfigError

# Name -> dense bfloat16 FLOPs per second, memory in GiB. Data sheets; H100 and H200 are the SXM versions.
DEVICES: dict[str, tuple[float, float]] = {
    "a100": (312e12, 80.0), "h100": (989e12, 80.0), "h200": (989e12, 141.0), "b200": (2250e12, 180.0), "l40s": (362e12, 45.0),
    "rtx4090": (165e12, 24.0),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a run is to take place.

    Attributes:
        ranks: data-parallel, one device each. sharded: parameters, gradients and optimiser are cut over the ranks.
        compute_bytes: bytes of one element in the computation, 0 for the model's own.
        reduce_bytes: bytes of one element in the sum of gradients over ranks.
        reshard: layers are let go after their forward pass. unsharded_gradients: micro-batches add up in whole gradients.
        offload: shards, gradients and optimiser are in main memory.
        gpu: kernels of GPUs, whose optimisers update all parameters together.
        flops: of a device per second, None if not given. memory: bytes of a device, None if not given.
    """

    ranks: int = 1
    sharded: bool = False
    compute_bytes: int = 0
    reduce_bytes: int = 4
    reshard: bool = True
    unsharded_gradients: bool = False
    offload: bool = False
    gpu: bool = False
    flops: float | None = None
    memory: int | None = None


def known_device(name: str) -> tuple[float, float]:
    """FLOPs per second and GiB of a device. Raises `ConfigError` for a name that is not known."""
    if name.lower() not in DEVICES:
        raise ConfigError("--device", wanted=" or ".join(DEVICES), got=name, remedy="Or give --flops and --memory.")
    return DEVICES[name.lower()]
