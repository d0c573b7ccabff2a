"""What the batch does to completions: the same prompts, seed and weights, decoded in other company.

    python benchmarks/sampling/determinism.py                  # writes determinism.json
    python benchmarks/sampling/determinism.py --device cuda

128 completions of the long-tailed model `tiny` (`model.py`), eight for each prompt. Counted are completions with other tokens;
of the others, how many log-probabilities differ and by how much.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from run import MODELS, SEED, build, given, ours  # noqa: E402

from delta_lightning.report import provenance  # noqa: E402
from delta_lightning.types import Completion, Prompt  # noqa: E402

GROUP = 8

Done = dict[tuple[str, int], Completion]


def compared(one: Done, other: Done) -> dict[str, Any]:
    """`other`, of the same prompts or some of them, beside `one`."""
    same = [key for key in other if list(one[key].token_ids) == list(other[key].token_ids)]
    gaps = [abs(a - b) for key in same for a, b in zip(one[key].logprobs, other[key].logprobs, strict=True)]
    return {
        "completions": len(other), "equal_bit_by_bit": sum(one[key] == other[key] for key in other),
        "with_other_tokens": len(other) - len(same), "logprobs_that_differ": sum(gap > 0 for gap in gaps) / len(gaps),
        "largest_logprob_difference": max(gaps),
    }  # fmt: skip


def measure(model: Any, limit: int, prompts: list[Prompt]) -> dict[str, Any]:
    """Way of batching -> what differs from all prompts at once, in one thread."""

    def sample(order: list[Prompt], **options: int) -> Done:
        return {(c.prompt_id, c.sample_index): c for c in ours(model, order, GROUP, limit, SEED, **{"threads": 1} | options)}

    first = sample(prompts)
    others = {
        "the same again": sample(prompts), "prompts in reverse": sample(prompts[::-1]),
        "half of the prompts": sample(prompts[::2]),
        "a fifth of the rows at a time": sample(prompts, max_rows=len(prompts) * GROUP // 5),
    }  # fmt: skip
    if model.device.type == "cpu":
        others["two threads"] = sample(prompts, threads=2)
    return {"tokens": sum(len(c.token_ids) for c in first.values())} | {
        name: compared(first, other) for name, other in others.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=HERE / "determinism.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device, size = torch.device(options.device), MODELS["tiny"]
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        found[str(dtype).removeprefix("torch.")] = measure(build(size, device).to(dtype), size["limit"], given(size["prompts"]))
        print(json.dumps(found), flush=True)
    result = {"provenance": provenance(seeds={"model": 0, "sampling": SEED}), "size": size, "dtypes": found}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
