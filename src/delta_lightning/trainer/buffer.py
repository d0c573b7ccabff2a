"""One rollout step's credited micro-batches: what the loader hands out and a checkpoint inside it must keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from delta_lightning.tensor_struct import TensorStruct
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Credit, Experience, RolloutBatch, StepTotals, with_mask


@dataclass(frozen=True, kw_only=True)
class MicroBatch(TensorStruct):
    """What one `training_step` gets.

    Attributes:
        index: position among the micro-batches of the rollout step. per_update: of how many an optimiser step is made.
        experience: its rows, without columns that are padding in every row.
        totals: denominators of the optimiser step that it belongs to.
    """

    index: int
    per_update: int
    experience: Experience
    totals: StepTotals

    @property
    def update(self) -> int:
        """The optimiser step, counted from the beginning of the rollout step."""
        return self.index // self.per_update

    @property
    def begins(self) -> bool:
        """The first of its optimiser step."""
        return self.index % self.per_update == 0

    @property
    def ends(self) -> bool:
        """The last of its optimiser step."""
        return (self.index + 1) % self.per_update == 0


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """A rollout step, cut into micro-batches (`micro`: rows) of optimiser steps (`totals`: one each), and its metrics.

    `drawn` counts the prompts that the run had taken from its data when the step was made.
    """

    step: int
    experience: Experience
    micro: list[slice]
    totals: list[StepTotals]
    metrics: dict[str, float] = field(default_factory=dict)
    drawn: int = 0

    @property
    def per_update(self) -> int:
        """Micro-batches of one optimiser step, the same on every rank."""
        return len(self.micro) // len(self.totals)

    def micro_batch(self, index: int) -> MicroBatch:
        """The micro-batch at `index`."""
        rows = self.experience.rows(self.micro[index])
        totals = self.totals[index // self.per_update]
        return MicroBatch(index=index, per_update=self.per_update, experience=rows.cut(rows.batch.longest), totals=totals)

    def mini_batch(self, update: int) -> tuple[Experience, list[slice]]:
        """The rows of one optimiser step and its micro-batches within them."""
        per = self.per_update
        parts = self.micro[update * per : (update + 1) * per]
        start = parts[0].start
        rows = slice(start, parts[-1].stop)
        return self.experience.rows(rows), [slice(part.start - start, part.stop - start) for part in parts]

    def shrunk(self, update: int, keep_BT: Tensor, ranks: Ranks) -> Buffer:
        """The buffer with a smaller loss mask in one optimiser step, and that step's totals taken anew. Collective."""
        per = self.per_update
        parts = self.micro[update * per : (update + 1) * per]
        batch = self.experience.batch
        mask_BT = batch.loss_mask_BT.clone()
        mask_BT[parts[0].start : parts[-1].stop] &= keep_BT.to(mask_BT.device)
        experience = dataclasses.replace(self.experience, batch=with_mask(batch, mask_BT))
        totals = list(self.totals)
        # A restored buffer lies in main memory, where the ranks of GPUs cannot add up.
        totals[update] = totals_of(experience, parts, per_update=per, ranks=ranks, device=keep_BT.device)[0]
        return dataclasses.replace(self, experience=experience, totals=totals)

    def state(self) -> dict[str, Any]:
        """As tensors and plain numbers, for a checkpoint that is read with `weights_only=True`."""
        return {
            "step": self.step,
            "experience": _pack(self.experience),
            "micro": [[part.start, part.stop] for part in self.micro],
            "totals": [dataclasses.asdict(totals) for totals in self.totals],
            "metrics": self.metrics,
            "drawn": self.drawn,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Buffer:
        """The inverse of `state`, in main memory."""
        fields = dict(state["experience"])
        experience = Experience(**fields | {"batch": RolloutBatch(**fields["batch"]), "credit": Credit(**fields["credit"])})
        return cls(
            step=state["step"],
            experience=experience,
            micro=[slice(start, stop) for start, stop in state["micro"]],
            totals=[StepTotals(**totals) for totals in state["totals"]],
            metrics=state["metrics"],
            drawn=state["drawn"],
        )


def _pack(value: TensorStruct) -> dict[str, Any]:
    packed: dict[str, Any] = {}
    for item in dataclasses.fields(value):  # type: ignore[arg-type]
        field = getattr(value, item.name)
        packed[item.name] = _pack(field) if isinstance(field, TensorStruct) else field
        if isinstance(field, Tensor):
            packed[item.name] = field.detach().cpu()
    return packed


def totals_of(
    experience: Experience, micro: Sequence[slice], *, per_update: int, ranks: Ranks, device: torch.device | None = None
) -> list[StepTotals]:
    """Denominators of every optimiser step of the rollout step, over its micro-batches and all ranks: one collective.

    The ranks add up on `device`, that of the experience by default.
    """
    mask_BT = experience.batch.loss_mask_BT
    rows: list[list[float]] = []
    for first in range(0, len(micro), per_update):
        part = slice(micro[first].start, micro[first + per_update - 1].stop)
        mask = mask_BT[part]
        trained = mask.any(1)
        groups = torch.unique(experience.batch.group_ids_B[part][trained])
        credit = (experience.credit.scale_BT[part].double() * mask).sum()
        rows.append([float(mask.sum()), float(trained.sum()), float(len(groups)), float(credit)])
    summed = ranks.all_sum(torch.tensor(rows, dtype=torch.float64, device=device or mask_BT.device))
    return [StepTotals(tokens=t, sequences=s, groups=g, credit=c) for t, s, g, c in summed.tolist()]
