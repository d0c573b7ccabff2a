"""Weights that are no numbers any more: named before a checkpoint of them takes the place of a good one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from delta_lightning.trainer.ranks import Ranks


@torch.no_grad()
def spoiled(named: Iterable[tuple[str, Tensor]], ranks: Ranks) -> list[str]:
    """Names of the tensors that hold NaN or an infinity on any rank, in their order. Collective.

    Reads each rank's own shards once; needs no memory beyond a number for each tensor.
    """
    names, largest = [], []
    for name, value in named:
        own = value.detach()
        own = own.to_local() if isinstance(own, DTensor) else own
        names.append(name)
        # The largest magnitude carries NaN and infinity; a rank may own nothing of a tensor.
        largest.append(
            torch.linalg.vector_norm(own, torch.inf).double() if own.numel() else own.new_zeros((), dtype=torch.float64)
        )
    if not names:
        return []
    bad = ~torch.stack(largest).isfinite()
    found = {name for part in ranks.all_objects([n for n, b in zip(names, bad.tolist(), strict=True) if b]) for name in part}
    return [name for name in names if name in found]
