"""Tokens per second of HFSampler beside plain `model.generate`, long-tailed lengths.

    python benchmarks/sampling/run.py                  # writes benchmarks/sampling/results.json
    python benchmarks/sampling/run.py --device cuda    # on a GPU, bfloat16, larger models
    python benchmarks/sampling/run.py --only tiny      # one model

The same random model, prompts and limit for both; the lengths are drawn by the model, one completion in sixteen runs to the
limit (`model.py`). Plain `generate` is given all prompts at once, left-padded. Arms take turns, more of them for small groups,
so that each arm samples as many completions. Tokens per processor second stand beside tokens per second, for machines that are
not idle.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `delta-lightning` does, for all arms alike

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from model import EOS, PAD, Numbers, long_tailed  # noqa: E402

from delta_lightning.interfaces import SamplerContext  # noqa: E402
from delta_lightning.report import provenance  # noqa: E402
from delta_lightning.samplers import HFSampler  # noqa: E402
from delta_lightning.types import Completion, Prompt, SamplingParams  # noqa: E402

MODELS: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 4, "width": 128, "vocabulary": 512, "mean": 32, "limit": 256, "prompts": 16},
    "small": {"layers": 6, "width": 384, "vocabulary": 4096, "mean": 16, "limit": 128, "prompts": 8},
}
ON_GPU: dict[str, dict[str, Any]] = {
    "0.4B": {"layers": 24, "width": 1024, "vocabulary": 151_936, "mean": 128, "limit": 1024, "prompts": 32},
}
GROUPS = (1, 8, 16)
SEED = 0

Measured = dict[str, float]


def build(size: dict[str, Any], device: torch.device) -> Any:
    shape = {name: size[name] for name in ("layers", "width", "vocabulary", "mean")}
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return long_tailed(**shape, context=size["limit"] + 64).to(device, dtype)


def given(count: int) -> list[Prompt]:
    """Prompts of 12 to 31 tokens."""
    return [
        Prompt(
            id=f"p{i}", text="", source="", reference={}, token_ids=tuple(2 + (7 * i + 3 * j) % 8 for j in range(12 + i % 20))
        )
        for i in range(count)
    ]


def ours(model: Any, prompts: list[Prompt], group: int, limit: int, seed: int, **options: Any) -> list[Completion]:
    session = HFSampler(**options).open(SamplerContext(model=model, tokenizer=Numbers(), device=model.device))
    return list(session.generate(prompts, num_completions=group, params=SamplingParams(max_new_tokens=limit), seed=seed))


@torch.no_grad()
def plain(model: Any, prompts: list[Prompt], group: int, limit: int, seed: int) -> list[int]:
    """Lengths of the completions of one call of `generate`."""
    longest = max(len(prompt.token_ids) for prompt in prompts)
    ids = torch.full((len(prompts), longest), PAD)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt.token_ids) :] = torch.tensor(prompt.token_ids)
    ids, mask = ids.to(model.device), (ids != PAD).to(model.device)
    torch.manual_seed(seed)
    out = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=limit, num_return_sequences=group
    )[:, longest:]
    ends = torch.isin(out, torch.tensor(model.generation_config.eos_token_id, device=out.device))
    first = torch.where(ends.any(1), ends.int().argmax(1) + 1, out.shape[1])
    return first.tolist()


def timed(work: Callable[[], list[int]]) -> Measured:
    start, cpu = time.perf_counter(), time.process_time()
    lengths = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "seconds": seconds, "cpu_seconds": cpu, "tokens": sum(lengths), "longest": max(lengths),
        "mean": sum(lengths) / len(lengths),
    }  # fmt: skip


def added(turns: list[Measured]) -> Measured:
    """All turns together: with few completions, how many of them are long differs from turn to turn."""
    seconds, cpu, tokens = (sum(turn[name] for turn in turns) for name in ("seconds", "cpu_seconds", "tokens"))
    values = {
        "seconds": seconds, "cpu_seconds": cpu, "tokens": tokens, "longest": max(turn["longest"] for turn in turns),
        "mean": sum(turn["mean"] for turn in turns) / len(turns), "tokens_per_second": tokens / seconds,
        "tokens_per_cpu_second": tokens / cpu,
    }  # fmt: skip
    return {name: round(value, 3) for name, value in values.items()}


def arms(model: Any, size: dict[str, Any], group: int) -> dict[str, Callable[[int], list[int]]]:
    prompts, limit = given(size["prompts"]), size["limit"]

    def sampler(**options: Any) -> Callable[[int], list[int]]:
        return lambda seed: [len(c.token_ids) for c in ours(model, prompts, group, limit, seed, **options)]

    quarter = max(1, len(prompts) * group // 4)
    return {
        "generate": lambda seed: plain(model, prompts, group, limit, seed),
        "hf_sampler": sampler(),
        "hf_sampler_quarter_of_rows": sampler(max_rows=quarter),
    }


def floor(model: Any, size: dict[str, Any], device: torch.device) -> Measured:
    """What no engine can avoid: FLOPs of a token's matrix products, bytes of the weights that every step reads.

    The speed of a product is that of processor time on a CPU, where other processes do not slow it down.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    weights = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in name)
    left = torch.randn(256, size["width"], device=device, dtype=model.dtype)
    right = torch.randn(size["width"], 3 * size["width"], device=device, dtype=model.dtype)
    repeats = 200
    for _ in range(20):
        left @ right
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    for _ in range(repeats):
        left @ right
    if device.type == "cuda":
        torch.cuda.synchronize()
    flops = 2 * left.shape[0] * right.numel() * repeats / (clock() - start)
    return {
        "matrix_flops_per_token": 2 * weights, "weight_bytes_per_step": weights * model.dtype.itemsize,
        "measured_gflops": round(flops / 1e9, 1), "tokens_per_second_at_that_speed": round(flops / (2 * weights)),
    }  # fmt: skip


def where(model: Any, size: dict[str, Any]) -> Measured:
    """Shares of one thread's time at 16 completions per prompt, by function; the profile itself slows Python down."""
    prompts = given(size["prompts"])
    profile = cProfile.Profile()
    profile.runcall(ours, model, prompts, 16, size["limit"], SEED, threads=1)
    stats = pstats.Stats(profile)
    by_name: dict[str, float] = {}
    for (_, _, name), (_, _, own, _, _) in stats.stats.items():  # type: ignore[attr-defined]
        by_name[name] = by_name.get(name, 0.0) + own
    total = sum(by_name.values())
    wanted = {"attention": "scaled_dot_product_attention", "linear layers": "nn.linear", "copies of keys and values": "copy_",
              "logits": "head_logits", "exp of the draw": "torch.exp", "log_softmax": "log_softmax"}  # fmt: skip
    shares = {label: sum(own for name, own in by_name.items() if key in name) / total for label, key in wanted.items()}
    rest = 1 - sum(shares.values())
    return {label: round(share, 3) for label, share in (shares | {"everything else": rest}).items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice")
    parser.add_argument("--turns", type=int, default=2, help="of the largest group; smaller ones take more")
    parser.add_argument("--only", help="one model")
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS, help="completions for each prompt")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    rows, extra = [], {}
    for name, size in (ON_GPU if device.type == "cuda" else MODELS).items():
        if options.only not in (None, name):
            continue
        model = build(size, device)
        ours(model, given(2), 2, 8, SEED)  # kernels and imports, outside of every measurement
        extra[name] = {"size": size, "floor": floor(model, size, device), "where": where(model, size)}  # fmt: skip
        print(json.dumps(extra[name]), flush=True)
        for group in options.groups:
            turns: dict[str, list[Measured]] = {}
            for turn in range(options.turns * max(GROUPS) // group):
                for arm, work in arms(model, size, group).items():
                    turns.setdefault(arm, []).append(timed(lambda: work(SEED + turn)))  # noqa: B023 - called at once
            row = {"model": name, "group": group} | {arm: added(measured) for arm, measured in turns.items()}
            rows.append(row)
            print(json.dumps(row), flush=True)
    result = {"provenance": provenance(seeds={"model": 0, "sampling": SEED}), "eos": EOS, "models": extra, "rows": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
