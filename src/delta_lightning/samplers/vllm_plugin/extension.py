"""What the trainer may ask of a worker of a vLLM server, by `collective_rpc`."""

from __future__ import annotations

from typing import Any

from delta_lightning.samplers.vllm_warp import KeptMass


class WorkerExtension:
    """Methods that vLLM adds to its workers (`--worker-extension-cls`)."""

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
        """Drops what is recorded of requests that nobody will ask for. Returns {"forgotten": count}."""
        return {"forgotten": sum(KeptMass.recorded.pop(name, None) is not None for name in names)}
