"""Triton kernels of `liger-kernel` for norms, feed-forward layers and rotations: the only file that imports it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from delta_lightning.errors import ConfigError, require

# Type of model -> the function of `liger_kernel.transformers` that puts its kernels into such a model.
ENTRY = {"qwen3": "apply_liger_kernel_to_qwen3", "olmo3": "apply_liger_kernel_to_olmo3"}
SETTING = "model.backbone.kernels=liger"


def check_liger(model_type: str | None) -> None:
    """Refuses what it cannot do here: another type of model (None: not known yet), no package, no GPU. Raises `ConfigError`."""
    require(
        model_type is None or model_type in ENTRY, SETTING, wanted=f"a model of type {' or '.join(ENTRY)}", got=model_type,
        remedy="Leave it out: the kernels of transformers work for every model.",
    )  # fmt: skip
    missing = [name for name in ("liger_kernel", "triton") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            SETTING, wanted="the packages liger-kernel and triton", got=f"no {' and no '.join(missing)}",
            remedy="Install them: pip install 'delta-lightning[liger]'; triton needs Linux and a GPU.",
        )  # fmt: skip
    import torch

    require(
        torch.cuda.is_available(), SETTING, wanted="a GPU, for which its kernels are compiled", got="none",
        remedy="Leave it out on CPUs.",
    )  # fmt: skip


def use_liger(model: Any) -> None:
    """Puts Liger's RMS norm, SwiGLU and rotary embedding into a model where it lies, sharded or not, in place.

    Parameters and their names stay; results stay up to rounding. Its losses are left out: they take one advantage per sequence
    and cannot carry the credit of tokens; head and loss stay the chunked ones here. Liger also puts its classes in the place of
    those of transformers, so that models of the type that are built later in this process have them too.

    Raises:
        ConfigError: it cannot be done here.
    """
    check_liger(model.config.model_type)
    from liger_kernel.transformers import monkey_patch

    apply = getattr(monkey_patch, ENTRY[model.config.model_type])
    apply(rope=True, rms_norm=True, swiglu=True, cross_entropy=False, fused_linear_cross_entropy=False, model=model)
