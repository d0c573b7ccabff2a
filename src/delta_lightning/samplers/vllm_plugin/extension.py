"""What the trainer may ask of a worker of a vLLM server, by `collective_rpc`."""

from __future__ import annotations

from typing import Any

from delta_lightning.samplers.servers.inspection import SHAPE
from delta_lightning.samplers.vllm_plugin import CUTS
from delta_lightning.samplers.vllm_warp import KeptMass


class WorkerExtension:
    """Methods that vLLM adds to its workers (`--worker-extension-cls`)."""

    vllm_config: Any  # the worker's

    def delta_describe(self) -> dict[str, Any]:
        """What the server was started with, as far as a trainer must know it."""
        config = self.vllm_config
        model, transfer = config.model_config, config.weight_transfer_config
        text = model.hf_text_config
        return {
            "dtype": str(model.dtype).removeprefix("torch."),
            "vocabulary": text.vocab_size,
            "context": model.max_model_len,
            "max_sequences": config.scheduler_config.max_num_seqs,
            "backend": transfer.backend if transfer is not None else "none",
            "logprobs_mode": model.logprobs_mode,
            "async_scheduling": bool(config.scheduler_config.async_scheduling),
            "cuts": CUTS in (model.logits_processors or ()),
            "config": {name: getattr(text, name, None) for name in SHAPE},
        }

    def delta_receipt(self) -> dict[str, Any]:
        """The last update that arrived whole: version, num_bytes, checksums; {} before any, and after one that broke."""
        receipt = getattr(getattr(self, "weight_transfer_engine", None), "receipt", None)
        return receipt.as_json() if receipt is not None else {}

    def delta_take_mass(self, requests: list[tuple[str, int]]) -> dict[str, list[float]]:
        """Log of the mass kept at each token of requests that have ended, which are then forgotten. Unknown ones are left out.

        Args:
            requests: names (`Cut.request`) and tokens of their completions.
        """
        return {name: KeptMass.take(name, length) for name, length in requests if name in KeptMass.recorded}

    def delta_forget_mass(self, names: list[str]) -> dict[str, int]:
        """Drops what is recorded of these requests, of all if none is named. Returns {"forgotten": count}."""
        gone = names or list(KeptMass.recorded)
        return {"forgotten": sum(KeptMass.recorded.pop(name, None) is not None for name in gone)}
