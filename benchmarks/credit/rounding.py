"""How far a bfloat16 cache moves coefficients on small random models: `python benchmarks/credit/rounding.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from delta_lightning.credit import Delta
from delta_lightning.credit.proxies import HeadGradient, HiddenGradient, TopKHiddenGradient
from delta_lightning.report.provenance import provenance
from delta_lightning.trainer.cache import HiddenCache

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from support.models import tiny_model
from support.steps import StepSetup, make_buffer

SEEDS = 6
PARTS = {
    "K = 0": Delta(refinements=0),
    "K = 1": Delta(),
    "K = 3": Delta(refinements=3),
    "HiddenGradient": Delta(proxy=HiddenGradient()),
    "HeadGradient": Delta(proxy=HeadGradient()),
    "TopKHiddenGradient, k = 8": Delta(proxy=TopKHiddenGradient(k=8)),
    "scope: group": Delta(scope="group"),
    "gate: hard": Delta(gate="hard"),
}


def coefficients(model: Any, part: Delta, groups: int, dtype: Any) -> torch.Tensor:
    setup = StepSetup(cache=HiddenCache(dtype=dtype), credit=part, groups=groups)
    experience = make_buffer(model, setup).experience
    return experience.credit.scale_BT[experience.batch.loss_mask_BT]


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name, part in PARTS.items():
        largest, means, tokens = [], [], set()
        for groups in (8, 32):
            for family in ("qwen3", "olmo3"):
                for seed in range(SEEDS):
                    model = tiny_model(family, seed=seed)
                    exact, rounded = (coefficients(model, part, groups, dtype) for dtype in ("model", "bfloat16"))
                    difference = (rounded - exact).abs()
                    largest.append(float(difference.max()))
                    means.append(float(difference.mean()))
                    tokens.add(len(exact))
        rows.append({"part": name, "largest": max(largest), "mean": mean(means), "tokens": sorted(tokens), "models": 2 * SEEDS})
        print(rows[-1], flush=True)
    result = {"provenance": provenance(seeds={"models": SEEDS}), "columns": ["part", "largest", "mean"], "table": rows}
    (Path(__file__).parent / "rounding.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
