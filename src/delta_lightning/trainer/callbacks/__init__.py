"""What a run keeps: checkpoints, a report, an export; and how it stops when asked to."""

from delta_lightning.trainer.callbacks.graceful_stop import GracefulStop
from delta_lightning.trainer.callbacks.hf_export import HFExport
from delta_lightning.trainer.callbacks.rollout_checkpoint import RolloutCheckpoint
from delta_lightning.trainer.callbacks.run_report import RunReport

__all__ = ["GracefulStop", "HFExport", "RolloutCheckpoint", "RunReport"]
