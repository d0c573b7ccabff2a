"""Numbers over many answers to a problem; held-out accuracy itself is `trainer/evaluating.py`."""

from delta_lightning.evaluation.pass_at_k import PassAtK

__all__ = ["PassAtK"]
