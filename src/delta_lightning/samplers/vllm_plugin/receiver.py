"""Weights into a running vLLM model, layer by layer, with a receipt: what the transfers have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from delta_lightning.samplers.vllm_plugin.receipts import Receipt

HEAD = "lm_head.weight"


@dataclass
class NoInit(WeightTransferInitInfo):  # type: ignore[misc]  # vLLM is untyped here
    """Each update says by itself where its weights are."""


@dataclass
class Update(WeightTransferUpdateInfo):  # type: ignore[misc]
    """Where the weights of one version are.

    Attributes:
        version: of the weights. tied: name of the embedding that is also the head, or None. source: of the transfer.
    """

    version: int
    tied: str | None
    source: dict[str, Any]


class Receiver(WeightTransferEngine[NoInit, Update]):  # type: ignore[misc]
    """Loads a stream of weights through vLLM's layerwise reload, which repacks them for its kernels.

    A stream that breaks leaves the model unusable but whole, so that the next complete update mends it.
    """

    init_info_cls = NoInit
    update_info_cls = Update
    supports_draft_weight_update = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.receipt: Receipt | None = None

    @abstractmethod
    def weights(self, update: Update) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of an update, each in memory of its own. Raises what the trainer is to be told."""

    def init_transfer_engine(self, init_info: NoInit) -> None:
        """Nothing to prepare."""

    def start_weight_update(self) -> None:
        """The layers expect new weights from here on."""
        self.receipt = None
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Update) -> None:
        """Load the whole update and write its receipt."""
        receipt = Receipt(update_info.version)
        with finished_if_it_fails(self):
            self.model.load_weights(self._with_tied_head(receipt.note(self.weights(update_info)), update_info.tied))
        self.receipt = receipt

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Copies are done when `receive_weights` returns: devices other than CPUs are waited for there."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":  # torch.accelerator knows none there
            import torch

            torch.accelerator.synchronize()

    def finish_weight_update(self) -> None:
        """Put the layers in order that had weights of their own to wait for."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing is held between updates."""

    def _with_tied_head(self, weights: Iterable[tuple[str, Tensor]], tied: str | None) -> Iterator[tuple[str, Tensor]]:
        """Gives a tied head its weight too: on CPUs vLLM keeps a repacked copy of it, which no embedding updates."""
        for name, tensor in weights:
            yield name, tensor
            if name == tied and self.device.type == "cpu":
                yield HEAD, tensor


@contextmanager
def finished_if_it_fails(engine: Any) -> Iterator[None]:
    """Takes the layers out of the reload when it breaks; they would count its tensors towards the next update."""
    with ExitStack() as undo:
        undo.callback(engine.finish_weight_update)
        undo.callback(setattr, engine, "receipt", None)
        yield
        undo.pop_all()
