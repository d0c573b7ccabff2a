"""The layout of one row per sequence, padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from delta_lightning.functional.partitions import padded_runs
from delta_lightning.models.layout import RowLayout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Padded(RowLayout):
    """One row per sequence, padded on the right to the longest of its micro-batch; for any attention kernel.

    Causal attention never lets a real token see the padding to its right, so no attention mask is built. Micro-batches hold
    rows of similar length; a micro-batch costs rows times longest row.
    """

    def predicting(self, body: Any, tokens_BT: Tensor, real_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The states at the positions before the masked ones."""
        from delta_lightning.functional.logprobs import predicting_states

        return predicting_states(body(input_ids=tokens_BT, use_cache=False).last_hidden_state, mask_BT)

    def cost(self, lengths: Sequence[int]) -> int:
        """Rows times longest row."""
        return len(lengths) * max(lengths, default=0)

    def cut(self, lengths: Sequence[int], count: int) -> list[list[int]]:
        """Runs of rows ordered by length; the largest padded size is the smallest possible of such runs."""
        return padded_runs(lengths, count)
