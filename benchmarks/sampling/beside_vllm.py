"""vLLM beside HFSampler on the same models: seconds of a weight update by parameter count, tokens per second by group size.

python benchmarks/sampling/beside_vllm.py, in an environment with vLLM (docs/vllm.md). Engines take turns, so that a noisy
machine is noisy to both; medians are reported, with the extremes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from delta_lightning.interfaces import SamplerContext, SamplerSession
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.report.provenance import provenance
from delta_lightning.samplers import HFSampler, VLLMSampler
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.weight_check import WeightCheck, WeightProof
from delta_lightning.types import Prompt, SamplingParams

HERE = Path(__file__).parent
SIZES = {  # name -> shape; heads are 32 or 64 wide, as vLLM's attention on CPUs needs
    "quickstart": {"hidden_size": 128, "layers": 3, "heads": 4, "kv_heads": 2, "intermediate_size": 384},
    "512 x 6": {"hidden_size": 512, "layers": 6, "heads": 8, "kv_heads": 4, "intermediate_size": 1536},
    "1024 x 8": {"hidden_size": 1024, "layers": 8, "heads": 16, "kv_heads": 8, "intermediate_size": 3072},
}
COMPLETIONS, NEW_TOKENS, PROMPT_TOKENS = 128, 64, 12


def prompts(count: int) -> list[Prompt]:
    ids = [tuple(2 + (7 * i + 11 * k) % 250 for k in range(PROMPT_TOKENS)) for i in range(count)]
    return [Prompt(id=f"p{i}", text="", token_ids=tokens, source="", reference={}) for i, tokens in enumerate(ids)]


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sample(session: SamplerSession, group: int, seed: int) -> int:
    """Tokens sampled; a random model seldom draws the end of sequence, and as seldom with either engine."""
    params = SamplingParams(max_new_tokens=NEW_TOKENS)
    given = prompts(COMPLETIONS // group)
    return sum(len(c.token_ids) for c in session.generate(given, num_completions=group, params=params, seed=seed))


def measure(name: str, family: str, rounds: int) -> dict[str, Any]:
    """One model: both engines in turns."""
    model = Tiny(family=family, context=256, **SIZES[name]).load(LoadContext())  # type: ignore[arg-type]
    context = SamplerContext(model=model, tokenizer=byte_tokenizer(), device=torch.device("cpu"))
    hf = HFSampler().open(context)
    started = time.perf_counter()
    vllm = VLLMSampler(cache_gib=1.0).open(context)
    started = time.perf_counter() - started
    proof, book = WeightProof(WeightCheck(), prompts(32), 256), MetricBook()
    updates, probes = [], []
    for version in range(rounds):
        updates.append(proof.deliver(vllm, version, model, book).seconds)
        probes.append(seconds(lambda version=version: proof.probe(vllm, version, model, book)))
    speeds: dict[str, dict[str, dict[str, float]]] = {}
    for group in (1, 8, 16):
        for session in (hf, vllm):
            sample(session, group, seed=99)  # warm
        found: dict[str, list[float]] = {"HFSampler": [], "VLLMSampler": []}
        for turn in range(rounds):
            for engine, session in (("HFSampler", hf), ("VLLMSampler", vllm)):
                start = time.perf_counter()
                count = sample(session, group, seed=turn)
                found[engine].append(count / (time.perf_counter() - start))
        speeds[str(group)] = {engine: spread(values) for engine, values in found.items()}
    vllm.close()
    parameters = sum(value.numel() for value in model.parameters())
    return {
        "model": name, "family": family, "parameters": parameters, "start_seconds": started, "update_seconds": spread(updates),
        "probe_seconds": spread(probes), "tokens_per_second": speeds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=list(SIZES))
    options = parser.parse_args()
    cases = [measure(name, "qwen3", options.rounds) for name in options.models]
    cases.append(measure("quickstart", "olmo3", options.rounds))
    settings = {"completions": COMPLETIONS, "new_tokens": NEW_TOKENS, "prompt_tokens": PROMPT_TOKENS, "rounds": options.rounds}
    result = {"provenance": provenance(), "threads": torch.get_num_threads(), "settings": settings, "cases": cases}
    (HERE / "beside_vllm.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for case in cases:
        print(f"{case['model']} {case['family']}: {case['parameters']:,} parameters, start {case['start_seconds']:.1f} s, "
              f"update {case['update_seconds']['median']:.3f} s, probe {case['probe_seconds']['median']:.3f} s")  # fmt: skip
        for group, speeds in case["tokens_per_second"].items():
            print(f"  G = {group}: " + ", ".join(f"{engine} {value['median']:,.0f}" for engine, value in speeds.items()))


if __name__ == "__main__":
    main()
