"""The parser of the commands that train: Lightning's, with short errors."""

from __future__ import annotations

from lightning.pytorch.cli import LightningArgumentParser

from delta_lightning.cli.config_files import ShortErrors


class DeltaParser(ShortErrors, LightningArgumentParser):
    """Lightning's parser; an error is one short message on stderr and exit code 2."""
