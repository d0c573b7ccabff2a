"""How the rows of a micro-batch go through the model's body, and what a micro-batch costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class RowLayout(ABC):
    """Rows of different lengths as the model reads them.

    Laws: a token's hidden state does not depend on the other rows, up to rounding; every layout gives the same states in the
    same order; rows are never split.
    """

    @abstractmethod
    def predicting(self, body: Any, tokens_BT: Tensor, real_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The hidden states that predicted the masked tokens, [N, D], rows in order and tokens in order.

        Args:
            body: the model without its head; called once.
            tokens_BT: int64, padded on the right, at least one row. real_BT: bool, True on real tokens.
            mask_BT: bool, a part of `real_BT`; column 0 is False, since nothing predicts the first token of a row.
        """

    @abstractmethod
    def cost(self, lengths: Sequence[int]) -> int:
        """Positions that the body computes for rows of these lengths: what memory and time of a micro-batch follow."""

    @abstractmethod
    def cut(self, lengths: Sequence[int], count: int) -> list[list[int]]:
        """Row numbers of exactly `count` micro-batches, some possibly empty, of small largest cost; the costliest first."""

    def check(self, attention: str, budget: int | None) -> list[str]:
        """Lines for people about what the layout costs with this attention kernel, before anything heavy has loaded.

        Args:
            attention: name of the kernel, as `transformers` calls it. budget: largest cost of a micro-batch, if one is set.

        Raises:
            ConfigError: the kernel cannot do it.
        """
        return []
