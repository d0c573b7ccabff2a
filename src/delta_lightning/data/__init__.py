"""Sources of problems, and what makes prompts of them."""

from delta_lightning.data.arithmetic import Arithmetic
from delta_lightning.data.chat import Chat
from delta_lightning.data.mixture import Mixture
from delta_lightning.data.on_disk import OnDisk
from delta_lightning.data.problem_filters import ColumnValue, Decontaminate, Deduplicate, Difficulty, PromptLength
from delta_lightning.data.streamed import Streamed
from delta_lightning.data.table import Table

__all__ = [
    "Arithmetic", "Chat", "ColumnValue", "Decontaminate", "Deduplicate", "Difficulty", "Mixture", "OnDisk", "PromptLength",
    "Streamed", "Table",
]  # fmt: skip
