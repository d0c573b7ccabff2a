"""What leaves problems out before anything is sampled (the filters of `filters/` judge what was sampled)."""

from delta_lightning.data.problem_filters.column_value import ColumnValue
from delta_lightning.data.problem_filters.decontaminate import Decontaminate
from delta_lightning.data.problem_filters.deduplicate import Deduplicate
from delta_lightning.data.problem_filters.difficulty import Difficulty
from delta_lightning.data.problem_filters.prompt_length import PromptLength

__all__ = ["ColumnValue", "Decontaminate", "Deduplicate", "Difficulty", "PromptLength"]
