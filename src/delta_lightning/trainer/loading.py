"""The policy as the strategy wants it, from the backbone's options."""

from __future__ import annotations

from functools import partial
from typing import Any

from delta_lightning.models.adapted import attached, described, initialise
from delta_lightning.models.adapter import Adapter
from delta_lightning.models.backbone import Backbone, LoadContext
from delta_lightning.models.recomputing import recompute_layers
from delta_lightning.trainer.base_state import keep_trained_only
from delta_lightning.trainer.placement import Placement


def load_policy(
    backbone: Backbone, adapter: Adapter | None, context: LoadContext, strategy: Any, *, activation_checkpointing: bool
) -> Any:
    """Loads the policy, with its adapter if there is one, and hands it to the strategy if that places models itself.

    Collective under such a strategy. The adapter is inserted before the model is placed, its values are drawn afterwards.
    """

    def load() -> Any:
        return attached(backbone.load(context), adapter)

    if isinstance(strategy, Placement):
        policy = strategy.place(load, partial(backbone.weight_files, context), adapter)
    else:
        policy = load()
    keep_trained_only(initialise(policy, context.seed))
    backbone.use_kernels(policy)
    for line in described(policy):
        context.say(line)
    return recompute_layers(policy) if activation_checkpointing else policy
