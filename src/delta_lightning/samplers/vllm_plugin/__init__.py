"""What runs inside a vLLM server that a trainer feeds: found by vLLM through the entry point `vllm.general_plugins`.

vLLM calls `register` in each of its processes, also those of users who never heard of this package: it names three transfers
of weights and imports none of them. They do something only where a server is started with one of these names.
"""

from __future__ import annotations

HTTP, FOLDER, NCCL = "delta_lightning_http", "delta_lightning_folder", "delta_lightning_nccl"
EXTENSION = "delta_lightning.samplers.vllm_plugin.extension.WorkerExtension"
CUTS = "delta_lightning.samplers.vllm_plugin.cuts:ServedCuts"

_ENGINES = {
    HTTP: ("http_engine", "HTTPReceiver"),
    FOLDER: ("folder_engine", "FolderReceiver"),
    NCCL: ("nccl_engine", "NCCLReceiver"),
}


def register() -> None:
    """Makes the names known to `--weight-transfer-config`. May be called again."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory as Factory

    for name, (module, engine) in _ENGINES.items():
        if name not in Factory._registry:  # vLLM refuses a name twice, and calls plug-ins again in some processes
            Factory.register_engine(name, f"{__name__}.{module}", engine)
