"""The policy as the strategy wants it, from the backbone's options."""

from __future__ import annotations

from functools import partial
from typing import Any

from delta_lightning.models.backbone import Backbone, LoadContext
from delta_lightning.models.recomputing import recompute_layers
from delta_lightning.trainer.placement import Placement


def load_policy(backbone: Backbone, context: LoadContext, strategy: Any, *, activation_checkpointing: bool) -> Any:
    """Loads the policy and hands it to the strategy if that places models itself. Collective under such a strategy."""
    load = partial(backbone.load, context)
    policy = strategy.place(load) if isinstance(strategy, Placement) else load()
    return recompute_layers(policy) if activation_checkpointing else policy
