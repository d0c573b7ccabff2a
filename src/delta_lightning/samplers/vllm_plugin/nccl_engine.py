"""Receives an update over NCCL with vLLM's own engine, and writes its receipt. Not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

from delta_lightning.samplers.vllm_plugin.receipts import Receipt
from delta_lightning.samplers.vllm_plugin.receiver import finished_if_it_fails


class NCCLReceiver(NCCLWeightTransferEngine):  # type: ignore[misc]  # vLLM is untyped here
    """The receiving end of `NCCLTransfer`."""

    supports_draft_weight_update = False
    model: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.receipt: Receipt | None = None

    def start_weight_update(self) -> None:
        """See vLLM."""
        self.receipt = None
        super().start_weight_update()

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """vLLM's update, told its version, with the model's `load_weights` overheard."""
        told = dict(update_info)
        receipt = Receipt(int(told.pop("version")))
        model: Any = self.model
        with finished_if_it_fails(self):
            self.model = _Overheard(model, receipt)
            try:
                super().update_weights(told)
            finally:
                self.model = model
        self.receipt = receipt


class _Overheard:
    """A model whose weights are written down as they are loaded."""

    def __init__(self, model: Any, receipt: Receipt) -> None:
        self._model, self._receipt = model, receipt

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Any:
        """Tensors of a packed buffer are read before the buffer is used again."""
        return self._model.load_weights(self._receipt.note(weights))
