"""Verdicts from worker processes."""

from delta_lightning.verifiers.pool.pool import VerifierPool

__all__ = ["VerifierPool"]
