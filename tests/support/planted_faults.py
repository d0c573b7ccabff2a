"""Mistakes of the kind that each factor of the training grid can hide, to show that the grid would see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from delta_lightning.models import recomputing
from delta_lightning.models.backbone import Backbone, LoadContext
from delta_lightning.models.lora import LoRA
from delta_lightning.models.packed import Packed
from delta_lightning.models.tiny import Tiny
from delta_lightning.strategies import FSDP2Strategy, fsdp2
from delta_lightning.trainer import module, pace, step
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.trainer.ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A mistake: the factor that hides it, the values of a cell that must show it, and how it is planted."""

    factor: str
    cell: dict[str, str]
    plant: Callable[[pytest.MonkeyPatch], None]


def own_totals(patch: pytest.MonkeyPatch) -> None:
    """Each rank divides by the tokens of its own rows."""
    right = step.totals_of
    patch.setattr(step, "totals_of", lambda *args, **options: right(*args, **options | {"ranks": Ranks()}))


def averaged(patch: pytest.MonkeyPatch) -> None:
    """The strategy's mean over ranks is taken for a sum."""
    right = PolicyModule.training_step

    def wrong(self: PolicyModule, batch: Any, batch_idx: int) -> torch.Tensor:
        return right(self, batch, batch_idx) / Ranks.current().size

    patch.setattr(PolicyModule, "training_step", wrong)


def no_window(patch: pytest.MonkeyPatch) -> None:
    """Layers with a sliding window see everything."""
    right = Tiny.config
    patch.setattr(Tiny, "config", lambda self: right(replace(self, sliding_window=self.context)))


def head_apart(patch: pytest.MonkeyPatch) -> None:
    """A tied head becomes a parameter of its own."""
    right = module.load_policy

    def wrong(backbone: Backbone, context: LoadContext, *args: Any, **options: Any) -> Any:
        policy = right(backbone, context, *args, **options)
        policy.lm_head.weight = torch.nn.Parameter(policy.lm_head.weight.detach().clone())
        return policy

    patch.setattr(module, "load_policy", wrong)


def narrowed(patch: pytest.MonkeyPatch) -> None:
    """Computes in float32 and says float64."""
    right = Tiny.load
    patch.setattr(Tiny, "load", lambda self, context: _Narrow(right(self, context)))


class _Narrow:
    """A model that rounds its weights to float32 before it is widened."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def double(self) -> Any:
        wide = self._model.double()
        for layer in wide.model.layers:
            layer.mlp.register_forward_hook(lambda _, __, out: out.float().double())
        return wide


def cut_off(patch: pytest.MonkeyPatch) -> None:
    """Layers that run again pass no gradient to those below."""

    def wrong(self: Any, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return self._forward(hidden.detach(), *args, **kwargs)

    patch.setattr(recomputing._Recomputed, "__call__", wrong)


def last_only(patch: pytest.MonkeyPatch) -> None:
    """Offloaded gradients of one micro-batch replace those of the one before."""

    def forget(self: FSDP2Strategy, closure_loss: torch.Tensor) -> None:
        if self.cpu_offload:
            assert self.lightning_module is not None
            self.lightning_module.zero_grad()

    patch.setattr(FSDP2Strategy, "pre_backward", forget)


def scaled_twice(patch: pytest.MonkeyPatch) -> None:
    """What an adapter adds counts double."""
    right = LoRA._config

    def wrong(self: LoRA, targets: list[str], *, base: str | None) -> Any:
        return right(replace(self, alpha=2 * self.alpha), targets, base=base)

    patch.setattr(LoRA, "_config", wrong)


def rows_see_each_other(patch: pytest.MonkeyPatch) -> None:
    """Positions of packed rows run on, so that attention crosses from row to row."""
    right = Packed.predicting

    def wrong(self: Packed, body: Any, *args: Any) -> torch.Tensor:
        return right(self, _RunOn(body), *args)

    patch.setattr(Packed, "predicting", wrong)


class _RunOn:
    """A body that is given positions as if all were one row."""

    def __init__(self, body: Any) -> None:
        self._body, self.config = body, body.config

    def __call__(self, *, input_ids: torch.Tensor, position_ids: torch.Tensor, **options: Any) -> Any:
        return self._body(input_ids=input_ids, position_ids=torch.arange(input_ids.shape[1])[None], **options)


def earlier_lost(patch: pytest.MonkeyPatch) -> None:
    """Gradients that wait for the sum over ranks are lost when it comes."""
    right = fsdp2.unsummed

    @contextmanager
    def wrong(module: Any) -> Iterator[None]:
        with right(module):
            yield
        for unit in module.modules():
            if isinstance(unit, FSDPModule):
                for group in unit._get_fsdp_state()._fsdp_param_groups:
                    for parameter in group.fsdp_params:
                        parameter.unsharded_accumulated_grad = parameter._unsharded_param.grad = None

    patch.setattr(fsdp2, "unsummed", wrong)


def pace_not_told(patch: pytest.MonkeyPatch) -> None:
    """Lightning goes on to step after as many micro-batches as the config has."""
    right = pace.set_pace

    def wrong(trainer: Any, updates: int, micro: int) -> None:
        before = trainer.accumulate_grad_batches
        right(trainer, updates, micro)
        trainer.accumulate_grad_batches = before

    patch.setattr(pace, "set_pace", wrong)


FAULTS = {
    "each rank divides by its own tokens": Fault(factor="ranks", cell={"ranks": "2", "strategy": "ddp"}, plant=own_totals),
    "the mean over ranks is taken for a sum": Fault(
        factor="strategy", cell={"ranks": "2", "strategy": "fsdp2"}, plant=averaged
    ),
    "sliding windows see everything": Fault(factor="family", cell={"family": "olmo3"}, plant=no_window),
    "a tied head is a parameter of its own": Fault(factor="head", cell={"head": "tied"}, plant=head_apart),
    "float64 is computed in float32": Fault(factor="dtype", cell={"dtype": "float64"}, plant=narrowed),
    "no gradient below layers that run again": Fault(factor="activations", cell={"activations": "recomputed"}, plant=cut_off),
    "offloaded gradients are not accumulated": Fault(
        factor="shards", cell={"ranks": "2", "strategy": "fsdp2", "shards": "offloaded"}, plant=last_only
    ),
    "what an adapter adds counts double": Fault(factor="trained", cell={"trained": "lora"}, plant=scaled_twice),
    "packed rows see one another": Fault(factor="rows", cell={"rows": "packed"}, plant=rows_see_each_other),
    "gradients that wait for their sum are lost": Fault(
        factor="sums", cell={"ranks": "2", "strategy": "fsdp2", "sums": "each update"}, plant=earlier_lost
    ),
    "an update is made before its last micro-batch": Fault(
        factor="budget", cell={"budget": "tokens_per_micro_batch"}, plant=pace_not_told
    ),
}
