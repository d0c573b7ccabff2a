"""The layout without padding: the rows of a micro-batch one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from delta_lightning.errors import require
from delta_lightning.functional.partitions import equal_sums
from delta_lightning.models.layout import RowLayout

if TYPE_CHECKING:
    from torch import Tensor

MASKING = ("sdpa", "eager")  # kernels that tell packed rows apart by a mask over all pairs of positions
MOST_MASKED = 16384  # positions; the mask of so many takes 256 MiB


@dataclass(frozen=True, kw_only=True)
class Packed(RowLayout):
    """All rows of a micro-batch one after the other in one row, without padding, for attention kernels of variable length.

    Positions restart at 0 with each row, and attention does not cross rows. With "flash_attention_2" the kernel is told where
    rows begin. "sdpa" and "eager" give the same values from a mask over all pairs of positions, which for S tokens takes S * S
    bytes (twice that for a model with sliding windows) and does the work of all pairs: right for tests, slow beyond a few
    thousand tokens. Micro-batches hold equally many tokens; a micro-batch costs its tokens.
    """

    def predicting(self, body: Any, tokens_BT: Tensor, real_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The states at the positions before the masked ones, of the one long row."""
        import torch

        from delta_lightning.functional.logprobs import predicting_states

        if bool(mask_BT[:, 0].any()):
            raise ValueError("the first token of a row has no prediction: its mask must be False")
        lengths_B = real_BT.sum(1, dtype=torch.int32)
        positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
        kernel: dict[str, Any] = {}
        if "flash" in body.config._attn_implementation:
            starts = torch.nn.functional.pad(lengths_B.cumsum(0, dtype=torch.int32), (1, 0))
            longest = int(lengths_B.max())  # a number: a tensor would be waited for in every layer
            kernel = {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": longest, "max_length_k": longest}
        # No cache and no mask: with either, transformers would take the long row for one sequence, and say nothing.
        states = body(
            input_ids=tokens_BT[real_BT][None], position_ids=positions_BT[real_BT][None], use_cache=False, **kernel
        ).last_hidden_state
        return predicting_states(states, mask_BT[real_BT][None])

    def cost(self, lengths: Sequence[int]) -> int:
        """Tokens."""
        return sum(lengths)

    def cut(self, lengths: Sequence[int], count: int) -> list[list[int]]:
        """Equally many tokens, as far as whole rows allow."""
        return equal_sums(lengths, count)

    def check(self, attention: str, budget: int | None) -> list[str]:
        """Refuses a large budget with a kernel that masks all pairs; warns where no budget bounds the mask."""
        if attention not in MASKING:
            return []
        tokens = budget or 0
        require(
            tokens <= MOST_MASKED, "model.layout Packed",
            wanted=f"at most {MOST_MASKED:,} tokens per micro-batch with {attention} attention, which masks all pairs of them "
            f"({MOST_MASKED**2 / 2**20:,.0f} MiB)", got=f"{tokens:,} ({tokens**2 / 2**20:,.0f} MiB)",
            remedy="Set --model.backbone.attn_implementation=flash_attention_2, --model.layout=Padded, or a smaller "
            "--model.tokens_per_micro_batch.",
        )  # fmt: skip
        return [
            f"Packed with {attention} attention: S tokens of a micro-batch cost a mask of S * S bytes and the work of all "
            "pairs; flash_attention_2 needs neither, and Padded is faster without it"
        ]
