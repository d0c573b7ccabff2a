"""The contract suite for parts, a stranger's too: `check(MyPart())` in a test, or `delta-lightning check package.MyPart`."""

from delta_lightning.testing.laws import check

__all__ = ["check"]
