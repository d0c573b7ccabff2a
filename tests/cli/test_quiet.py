"""Lightning's noise is gone, its other warnings are not."""

from __future__ import annotations

import logging
import warnings

import pytest

from delta_lightning.cli.quiet import quiet


def test_banners_are_below_the_level_and_warnings_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.INFO)
    quiet()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)
        assert logging.getLogger(name).isEnabledFor(logging.WARNING)


def test_only_meaningless_warnings_are_ignored() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quiet()
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck.", stacklevel=1)
        warnings.warn("torch.distributed is disabled, unavailable or uninitialized, assuming the intent is", stacklevel=1)
        warnings.warn("Found 52 module(s) in eval mode at the start of training. This may lead to", stacklevel=1)
        warnings.warn("the loss is not finite", stacklevel=1)
    assert [str(one.message) for one in seen] == ["the loss is not finite"]


def test_torchaos_log_lines_are_left_out_and_its_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    quiet()
    quiet()
    logging.getLogger("torchao").warning("Failed to load %s: no CUDA", "_C_mxfp8.so")
    logging.getLogger("torchao").warning("weights lost")
    logging.getLogger("torch.utils._pytree").warning("Calling register_constant() on Enum subclasses is deprecated and will")
    assert [record.getMessage() for record in caplog.records] == ["weights lost"]
    assert all(len(logging.getLogger(name).filters) == 1 for name in ("torchao", "torch.utils._pytree"))
