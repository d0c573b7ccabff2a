"""How weights travel from the trainer to vLLM servers."""

from delta_lightning.samplers.servers.transfers.folder import FolderTransfer
from delta_lightning.samplers.servers.transfers.http import HTTPTransfer
from delta_lightning.samplers.servers.transfers.nccl import NCCLTransfer
from delta_lightning.samplers.servers.transfers.transfer import Delivered, Target, TransferSession, WeightTransfer

__all__ = ["Delivered", "FolderTransfer", "HTTPTransfer", "NCCLTransfer", "Target", "TransferSession", "WeightTransfer"]
