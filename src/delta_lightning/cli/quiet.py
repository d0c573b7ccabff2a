"""Lightning's banners, tips and warnings that say nothing about this trainer, silenced. The others stay."""

from __future__ import annotations

import logging
import warnings

MEANINGLESS = (
    r".*does not have many workers.*",  # the train loader makes rollouts; workers would not help
    r".*Consider setting `persistent_workers.*",
    r"Experiment logs directory .* exists and is not empty.*",  # the run folder; rows are kept on a resume
    r"Checkpoint directory .* exists and is not empty.*",
    r".*You have overridden `transfer_batch_to_device` in `LightningModule`.*",  # meant so
    r".*module\(s\) in eval mode at the start of training.*",  # meant so: old and new log-probabilities without dropout
    r"It is recommended to use `self\.log\(.*sync_dist=True\)`.*",  # metrics are over all ranks before they are logged
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step\(\)`.*",
    r".*Total length of `.*` across ranks is zero.*",
    r"You're resuming from a checkpoint that ended before the epoch ended.*",  # the data module keeps the place
    r"torch\.distributed is disabled, unavailable or uninitialized",  # meant so: an export reads shards in one process
    r".*You are trying to `self\.log\(\)` but the loop's result collection is not registered.*",
)

# Of torchao, which transformers and torch import where it is installed: kernels that nothing here calls, and its own past.
LOGGED = {"torchao": "Failed to load ", "torch.utils._pytree": "register_constant() on Enum subclasses is deprecated"}


def _has_meaning(record: logging.LogRecord) -> bool:
    return LOGGED[record.name] not in record.getMessage()


def quiet() -> None:
    """Raise Lightning's loggers to warnings, and ignore the warnings and log lines above."""
    for name in LOGGED:
        logging.getLogger(name).addFilter(_has_meaning)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in MEANINGLESS:
        warnings.filterwarnings("ignore", message=message)
