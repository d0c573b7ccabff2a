"""Seconds of a weight update of vLLM servers by parameter count, for each transfer that runs without GPUs.

python benchmarks/sampling/server_updates.py, in an environment with vLLM (docs/vllm.md). Transfers take turns on servers of
their own, so that a noisy machine is noisy to both; medians are reported, with the extremes. An update is everything: weights
gathered, sent, repacked by vLLM, receipts compared, caches emptied.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from delta_lightning.interfaces import SamplerContext, SamplerSession
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.report.provenance import provenance
from delta_lightning.samplers import VLLMServerSampler
from delta_lightning.samplers.servers.transfers import FolderTransfer, HTTPTransfer, WeightTransfer

HERE = Path(__file__).parent
SIZES = {  # name -> shape; heads are 32 or 64 wide, as vLLM's attention on CPUs needs
    "128 x 3": {"hidden_size": 128, "layers": 3, "heads": 4, "kv_heads": 2, "intermediate_size": 384},
    "512 x 6": {"hidden_size": 512, "layers": 6, "heads": 8, "kv_heads": 4, "intermediate_size": 1536},
    "1024 x 8": {"hidden_size": 1024, "layers": 8, "heads": 16, "kv_heads": 8, "intermediate_size": 3072},
}


def measure(name: str, servers: int, rounds: int, folder: str) -> dict[str, Any]:
    """One model: the transfers in turns, each with `servers` servers."""
    model = Tiny(context=256, **SIZES[name]).load(LoadContext())
    context = SamplerContext(model=model, tokenizer=byte_tokenizer(), device=torch.device("cpu"))
    transfers: dict[str, WeightTransfer] = {"HTTPTransfer": HTTPTransfer(), "FolderTransfer": FolderTransfer(path=folder)}
    found: dict[str, list[float]] = {name: [] for name in transfers}
    starts: dict[str, float] = {}
    with ExitStack() as stack:
        sessions: dict[str, SamplerSession] = {}
        for way, transfer in transfers.items():
            begun = time.perf_counter()
            options = VLLMServerSampler(start=servers, transfer=transfer, cache_gib=0.25, max_sequences=64)
            sessions[way] = options.open(context)
            stack.callback(sessions[way].close)
            starts[way] = time.perf_counter() - begun
        for version in range(rounds + 1):
            for way, session in sessions.items():
                seconds = session.update_weights(version, model.named_parameters()).seconds
                if version:  # the first warms up
                    found[way].append(seconds)
    parameters = sum(value.numel() for value in model.parameters())
    spread = {way: {"median": statistics.median(s), "least": min(s), "most": max(s)} for way, s in found.items()}
    return {"model": name, "parameters": parameters, "servers": servers, "start_seconds": starts, "update_seconds": spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--models", nargs="*", default=list(SIZES))
    parser.add_argument("--folder", default=None, help="for FolderTransfer; a temporary one by default")
    parser.add_argument("--out", default=str(HERE / "server_updates.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = options.folder or folder
        cases = [measure(name, options.servers, options.rounds, place) for name in options.models]
    result = {"provenance": provenance(), "threads": torch.get_num_threads(), "rounds": options.rounds, "cases": cases}
    Path(options.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for case in cases:
        for way, seconds in case["update_seconds"].items():
            print(f"{case['model']}, {case['parameters']:,} parameters, {case['servers']} server(s), {way}: "
                  f"{seconds['median']:.3f} s ({seconds['least']:.3f} to {seconds['most']:.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
